-- What each model is used for, by tenant: a read model that is wanted long after the first uses were recorded.

CREATE TABLE read.model_use (
    tenant_id uuid NOT NULL,
    model text NOT NULL,
    partition integer NOT NULL,
    uses bigint NOT NULL,
    total bigint NOT NULL,
    PRIMARY KEY (tenant_id, model, partition)
) WITH (fillfactor = 70);
