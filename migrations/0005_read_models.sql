-- The live read models. Each version built later is created from the table specifications in the projections; a test
-- compares these statements with them. Every key contains the partition, so that the tables distribute like the log.

CREATE TABLE read.wallet_balance (
    tenant_id uuid NOT NULL,
    asset text NOT NULL,
    partition integer NOT NULL,
    granted bigint NOT NULL,
    spent bigint NOT NULL,
    held bigint NOT NULL,
    available bigint NOT NULL,
    expired bigint NOT NULL,
    voided bigint NOT NULL,
    debt bigint NOT NULL,
    lifetime_deducted bigint NOT NULL,
    lifetime_reversed bigint NOT NULL,
    lifetime_debt bigint NOT NULL
) WITH (fillfactor = 50);
ALTER TABLE read.wallet_balance ADD CONSTRAINT wallet_balance_pkey PRIMARY KEY (tenant_id, asset, partition);

CREATE TABLE read.wallet_ledger (
    partition integer NOT NULL,
    position bigint NOT NULL,
    tenant_id uuid NOT NULL,
    recorded_at timestamp with time zone NOT NULL,
    effective_at timestamp with time zone NOT NULL,
    type text NOT NULL,
    asset text NOT NULL,
    amount bigint NOT NULL,
    balance_after bigint,
    debt bigint NOT NULL,
    debt_after bigint,
    usage_id uuid,
    hold_id uuid,
    grant_id uuid,
    reason text NOT NULL,
    source_ref text
) WITH (fillfactor = 100);
ALTER TABLE read.wallet_ledger ADD CONSTRAINT wallet_ledger_pkey PRIMARY KEY (partition, position);
CREATE INDEX wallet_ledger_tenant ON read.wallet_ledger (tenant_id, position);

CREATE TABLE read.usage_log (
    partition integer NOT NULL,
    position bigint NOT NULL,
    tenant_id uuid NOT NULL,
    usage_id uuid NOT NULL,
    at timestamp with time zone NOT NULL,
    meter text NOT NULL,
    api_key_id text,
    provider text NOT NULL,
    model text NOT NULL,
    prompt_tokens bigint NOT NULL,
    completion_tokens bigint NOT NULL,
    cached_tokens bigint NOT NULL,
    cache_write_tokens bigint NOT NULL,
    reasoning_tokens bigint NOT NULL,
    provider_cost bigint NOT NULL,
    markup bigint NOT NULL,
    total bigint NOT NULL,
    byok boolean NOT NULL,
    estimated boolean NOT NULL,
    price_book_version text NOT NULL,
    latency_ms bigint NOT NULL,
    task_type text NOT NULL,
    outcome text NOT NULL
) WITH (fillfactor = 100);
ALTER TABLE read.usage_log ADD CONSTRAINT usage_log_pkey PRIMARY KEY (partition, position);
CREATE INDEX usage_log_tenant ON read.usage_log (tenant_id, position);

CREATE TABLE read.rate_limit_windows (
    tenant_id uuid NOT NULL,
    api_key_id text NOT NULL,
    window_kind text NOT NULL,
    window_start timestamp with time zone NOT NULL,
    partition integer NOT NULL,
    requests bigint NOT NULL
) WITH (fillfactor = 70);
ALTER TABLE read.rate_limit_windows ADD CONSTRAINT rate_limit_windows_pkey PRIMARY KEY (tenant_id, api_key_id, window_kind, window_start, partition);
CREATE INDEX rate_limit_windows_start ON read.rate_limit_windows (window_kind, window_start);

CREATE TABLE read.open_holds (
    tenant_id uuid NOT NULL,
    hold_id uuid NOT NULL,
    partition integer NOT NULL,
    asset text NOT NULL,
    amount bigint NOT NULL,
    usage_id uuid NOT NULL,
    placed_at timestamp with time zone NOT NULL,
    expires_at timestamp with time zone NOT NULL
) WITH (fillfactor = 100);
ALTER TABLE read.open_holds ADD CONSTRAINT open_holds_pkey PRIMARY KEY (tenant_id, hold_id, partition);
CREATE INDEX open_holds_expires_at ON read.open_holds (expires_at);

CREATE TABLE read.accounts (
    user_id uuid NOT NULL,
    partition integer NOT NULL,
    email_subject uuid NOT NULL,
    email_sealed text NOT NULL,
    email_hash text NOT NULL,
    display_name_sealed text,
    personal_tenant_id uuid NOT NULL,
    referred_by uuid,
    registered_at timestamp with time zone NOT NULL,
    password_changed_at timestamp with time zone,
    is_operator boolean NOT NULL,
    is_finance boolean NOT NULL,
    is_moderator boolean NOT NULL
) WITH (fillfactor = 90);
ALTER TABLE read.accounts ADD CONSTRAINT accounts_pkey PRIMARY KEY (user_id, partition);
CREATE INDEX accounts_email_hash ON read.accounts (email_hash);

CREATE TABLE read.tenants (
    tenant_id uuid NOT NULL,
    partition integer NOT NULL,
    name text NOT NULL,
    personal boolean NOT NULL,
    created_by uuid NOT NULL,
    created_at timestamp with time zone NOT NULL,
    strict_models boolean NOT NULL
) WITH (fillfactor = 90);
ALTER TABLE read.tenants ADD CONSTRAINT tenants_pkey PRIMARY KEY (tenant_id, partition);

CREATE TABLE read.tenant_members (
    tenant_id uuid NOT NULL,
    user_id uuid NOT NULL,
    partition integer NOT NULL,
    role text NOT NULL,
    added_at timestamp with time zone NOT NULL
) WITH (fillfactor = 90);
ALTER TABLE read.tenant_members ADD CONSTRAINT tenant_members_pkey PRIMARY KEY (tenant_id, user_id, partition);
CREATE INDEX tenant_members_user ON read.tenant_members (user_id);

CREATE TABLE read.api_keys (
    tenant_id uuid NOT NULL,
    key_id text NOT NULL,
    partition integer NOT NULL,
    name text,
    last_four text NOT NULL,
    endpoints jsonb,
    models jsonb,
    ip_allowlist jsonb,
    per_minute bigint NOT NULL,
    per_hour bigint NOT NULL,
    per_day bigint NOT NULL,
    expires_at timestamp with time zone,
    issued_by uuid NOT NULL,
    issued_at timestamp with time zone NOT NULL,
    revoked_by uuid,
    revoked_at timestamp with time zone
) WITH (fillfactor = 90);
ALTER TABLE read.api_keys ADD CONSTRAINT api_keys_pkey PRIMARY KEY (tenant_id, key_id, partition);
