-- The logins of each person, so that they can see and end their own. Where a login came from stays sealed in here.

CREATE TABLE read.sessions (
    user_id uuid NOT NULL,
    session_id uuid NOT NULL,
    partition integer NOT NULL,
    tenant_id uuid NOT NULL,
    device_id uuid NOT NULL,
    started_at timestamp with time zone NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    address_sealed text,
    user_agent_sealed text,
    ended_at timestamp with time zone,
    end_cause text
) WITH (fillfactor = 90);
ALTER TABLE read.sessions ADD CONSTRAINT sessions_pkey PRIMARY KEY (user_id, session_id, partition);
CREATE INDEX sessions_standing ON read.sessions (user_id, started_at) WHERE ended_at IS NULL;
