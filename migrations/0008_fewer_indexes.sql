-- One index less per row written: the ledger and the usage log are keyed by tenant first, which is also how they are
-- read; open holds come and go too often for an index that only a sweep would use.

ALTER TABLE read.wallet_ledger DROP CONSTRAINT wallet_ledger_pkey;
DROP INDEX read.wallet_ledger_tenant;
ALTER TABLE read.wallet_ledger ADD CONSTRAINT wallet_ledger_pkey PRIMARY KEY (tenant_id, position, partition);

ALTER TABLE read.usage_log DROP CONSTRAINT usage_log_pkey;
DROP INDEX read.usage_log_tenant;
ALTER TABLE read.usage_log ADD CONSTRAINT usage_log_pkey PRIMARY KEY (tenant_id, position, partition);

DROP INDEX read.open_holds_expires_at;
