-- The tables of the first release, as its create_all made them; COLLATE_C stands where PostgreSQL had COLLATE "C".
CREATE TABLE schema_version (
    version INTEGER NOT NULL,
    PRIMARY KEY (version)
);

CREATE TABLE jobs (
    id VARCHAR(32) COLLATE_C NOT NULL,
    batch_id VARCHAR(32) COLLATE_C,
    agent_id VARCHAR(128) NOT NULL,
    status VARCHAR(16) NOT NULL,
    request TEXT NOT NULL,
    batch_key TEXT NOT NULL,
    input_path TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    started_at BIGINT,
    finished_at BIGINT,
    attempts INTEGER NOT NULL,
    lease_owner VARCHAR(255),
    lease_expires_at BIGINT,
    fence BIGINT NOT NULL,
    progress INTEGER NOT NULL,
    current_step VARCHAR(255) NOT NULL,
    eta_seconds FLOAT,
    cancel_requested BOOLEAN NOT NULL,
    artifact VARCHAR(255),
    metadata TEXT,
    error_code VARCHAR(64),
    error_message TEXT,
    PRIMARY KEY (id),
    CONSTRAINT progress_in_percent CHECK (progress BETWEEN 0 AND 100),
    CONSTRAINT leased_while_processing CHECK ((status = 'processing') = (lease_owner IS NOT NULL) AND (lease_owner IS NULL) = (lease_expires_at IS NULL)),
    CONSTRAINT finished_at_when_finished CHECK ((status IN ('queued', 'processing')) = (finished_at IS NULL)),
    CONSTRAINT artifact_when_completed CHECK ((status = 'completed') = (artifact IS NOT NULL)),
    CONSTRAINT error_when_failed CHECK ((status = 'failed') = (error_code IS NOT NULL)),
    CONSTRAINT job_status CHECK (status IN ('queued', 'processing', 'completed', 'failed', 'cancelled')),
    UNIQUE (artifact)
);

CREATE INDEX jobs_by_finish ON jobs (finished_at);

CREATE INDEX jobs_by_picture ON jobs (input_path);

CREATE INDEX jobs_by_state ON jobs (status, agent_id, id);

CREATE INDEX jobs_by_start ON jobs (agent_id, started_at);

CREATE INDEX jobs_by_agent ON jobs (agent_id, id);

CREATE INDEX jobs_by_batch ON jobs (batch_id);

CREATE TABLE idempotency_keys (
    agent_id VARCHAR(128) NOT NULL,
    key VARCHAR(255) NOT NULL,
    fingerprint VARCHAR(255) NOT NULL,
    job_ids TEXT NOT NULL,
    batch_id VARCHAR(32) COLLATE_C,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (agent_id, key)
);

CREATE INDEX idempotency_keys_by_expiry ON idempotency_keys (expires_at);

CREATE TABLE nonces (
    agent_id VARCHAR(128) NOT NULL,
    nonce VARCHAR(128) NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (agent_id, nonce)
);

CREATE INDEX nonces_by_expiry ON nonces (expires_at);

CREATE TABLE workers (
    owner VARCHAR(255) NOT NULL,
    condition VARCHAR(16) NOT NULL,
    model TEXT,
    device_type TEXT,
    device_name TEXT,
    memory_total BIGINT,
    memory_free BIGINT,
    error TEXT,
    seconds_per_job FLOAT,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (owner)
);

CREATE INDEX workers_by_expiry ON workers (expires_at);
