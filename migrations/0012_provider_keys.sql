-- Which providers each tenant brought a key of its own for, as people see it; the keys themselves stand in the keyring.

CREATE TABLE read.provider_keys (
    tenant_id uuid NOT NULL,
    provider text NOT NULL,
    partition integer NOT NULL,
    entry_id uuid NOT NULL,
    last_four text NOT NULL,
    added_by uuid NOT NULL,
    added_at timestamp with time zone NOT NULL
) WITH (fillfactor = 90);
ALTER TABLE read.provider_keys ADD CONSTRAINT provider_keys_pkey PRIMARY KEY (tenant_id, provider, partition);
