-- What a key may spend, and which key took which key's place.

ALTER TABLE read.api_keys
    ADD COLUMN budget_per_day bigint,
    ADD COLUMN budget_per_month bigint,
    ADD COLUMN replaces text,
    ADD COLUMN replaced_by text;
