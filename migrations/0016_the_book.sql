-- The book as it is read: its entries one by one, sums of them by account, by time and by wallet, and what finance works
-- on beside them. The rows come from the log, from its beginning.

CREATE TABLE read.journal (
    tenant_id uuid NOT NULL,
    recorded_at timestamp with time zone NOT NULL,
    position bigint NOT NULL,
    partition integer NOT NULL,
    asset text NOT NULL,
    effective_at timestamp with time zone NOT NULL,
    shifted boolean NOT NULL,
    type text NOT NULL,
    amount bigint NOT NULL,
    available bigint NOT NULL,
    held bigint NOT NULL,
    debt bigint NOT NULL,
    postings text NOT NULL,
    usage_id uuid,
    source_ref text
) WITH (fillfactor = 100);
ALTER TABLE read.journal ADD CONSTRAINT journal_pkey PRIMARY KEY (tenant_id, recorded_at, position, partition, asset);
CREATE INDEX journal_recorded_at ON read.journal (recorded_at, partition, position);
CREATE INDEX journal_effective_at ON read.journal (effective_at) WHERE shifted;
CREATE INDEX journal_tenant_effective_at ON read.journal (tenant_id, effective_at) WHERE shifted;

CREATE TABLE read.account_balances (
    tenant_id uuid NOT NULL,
    account text NOT NULL,
    asset text NOT NULL,
    partition integer NOT NULL,
    balance bigint NOT NULL,
    entries bigint NOT NULL
) WITH (fillfactor = 70);
ALTER TABLE read.account_balances ADD CONSTRAINT account_balances_pkey PRIMARY KEY (tenant_id, account, asset, partition);
CREATE INDEX account_balances_account ON read.account_balances (account COLLATE "C", asset);

CREATE TABLE read.trial_balance (
    level text NOT NULL,
    effective_from timestamp with time zone NOT NULL,
    recorded_from timestamp with time zone NOT NULL,
    account text NOT NULL,
    asset text NOT NULL,
    partition integer NOT NULL,
    debit bigint NOT NULL,
    credit bigint NOT NULL
) WITH (fillfactor = 70);
ALTER TABLE read.trial_balance ADD CONSTRAINT trial_balance_pkey PRIMARY KEY (level, effective_from, recorded_from, account, asset, partition);
CREATE INDEX trial_balance_recorded_from ON read.trial_balance (level, recorded_from);

CREATE TABLE read.wallet_days (
    tenant_id uuid NOT NULL,
    asset text NOT NULL,
    effective_day timestamp with time zone NOT NULL,
    recorded_day timestamp with time zone NOT NULL,
    partition integer NOT NULL,
    available bigint NOT NULL,
    held bigint NOT NULL,
    debt bigint NOT NULL,
    entries bigint NOT NULL
) WITH (fillfactor = 70);
ALTER TABLE read.wallet_days ADD CONSTRAINT wallet_days_pkey PRIMARY KEY (tenant_id, asset, effective_day, recorded_day, partition);

CREATE TABLE read.open_grants (
    tenant_id uuid NOT NULL,
    grant_id uuid NOT NULL,
    partition integer NOT NULL,
    asset text NOT NULL,
    expires_at timestamp with time zone NOT NULL
) WITH (fillfactor = 100);
ALTER TABLE read.open_grants ADD CONSTRAINT open_grants_pkey PRIMARY KEY (tenant_id, grant_id, partition);
CREATE INDEX open_grants_expires_at ON read.open_grants (expires_at);

CREATE TABLE read.adjustments (
    tenant_id uuid NOT NULL,
    adjustment_id uuid NOT NULL,
    partition integer NOT NULL,
    asset text NOT NULL,
    amount bigint NOT NULL,
    reason text NOT NULL,
    evidence text NOT NULL,
    effective_at timestamp with time zone NOT NULL,
    proposed_by uuid NOT NULL,
    proposed_at timestamp with time zone NOT NULL,
    lapses_at timestamp with time zone NOT NULL,
    approvals_needed integer NOT NULL,
    approvals jsonb NOT NULL,
    status text NOT NULL,
    ended_at timestamp with time zone,
    rejected_by uuid,
    rejection text,
    grant_id uuid
) WITH (fillfactor = 80);
ALTER TABLE read.adjustments ADD CONSTRAINT adjustments_pkey PRIMARY KEY (tenant_id, adjustment_id, partition);
CREATE INDEX adjustments_id ON read.adjustments (adjustment_id);
CREATE INDEX adjustments_lapses_at ON read.adjustments (lapses_at) WHERE status = 'open';

CREATE TABLE read.periods (
    month text NOT NULL,
    partition integer NOT NULL,
    closed_by uuid NOT NULL,
    closed_at timestamp with time zone NOT NULL,
    as_known_at timestamp with time zone NOT NULL,
    heads jsonb NOT NULL,
    lines jsonb NOT NULL,
    hash text NOT NULL,
    previous_hash text
) WITH (fillfactor = 100);
ALTER TABLE read.periods ADD CONSTRAINT periods_pkey PRIMARY KEY (month, partition);

CREATE TABLE read.reconciliations (
    reconciliation_id uuid NOT NULL,
    partition integer NOT NULL,
    source text NOT NULL,
    from_at timestamp with time zone NOT NULL,
    to_at timestamp with time zone NOT NULL,
    matched bigint NOT NULL,
    found bigint NOT NULL,
    outside bigint NOT NULL,
    statement_hash text NOT NULL,
    run_by uuid NOT NULL,
    run_at timestamp with time zone NOT NULL
) WITH (fillfactor = 100);
ALTER TABLE read.reconciliations ADD CONSTRAINT reconciliations_pkey PRIMARY KEY (reconciliation_id, partition);

CREATE TABLE read.reconciliation_exceptions (
    reconciliation_id uuid NOT NULL,
    number bigint NOT NULL,
    partition integer NOT NULL,
    kind text NOT NULL,
    reference text NOT NULL,
    ours_amount bigint,
    ours_fee bigint,
    ours_at timestamp with time zone,
    theirs_amount bigint,
    theirs_fee bigint,
    theirs_at timestamp with time zone,
    owner uuid,
    assigned_by uuid,
    assigned_at timestamp with time zone,
    resolution text,
    note text,
    resolved_by uuid,
    resolved_at timestamp with time zone
) WITH (fillfactor = 80);
ALTER TABLE read.reconciliation_exceptions ADD CONSTRAINT reconciliation_exceptions_pkey PRIMARY KEY (reconciliation_id, number, partition);
CREATE INDEX reconciliation_exceptions_open ON read.reconciliation_exceptions (reconciliation_id, number) WHERE resolution IS NULL;
