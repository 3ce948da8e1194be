-- Alerts leave the database: what opens or resolves one is noted by the transaction that does it, and delivered from
-- there, once a channel.
ALTER TABLE control.alerts ADD COLUMN sample_id text;

-- The kinds of the watch after a cutover become one, its anomalies fingerprints.
UPDATE control.alerts SET kind = 'cutover_anomaly', fingerprint = substr(kind, length('cutover_') + 1)
WHERE kind LIKE 'cutover\_%';

-- One cause of several tenants is an alert of each.
DROP INDEX control.one_open_alert_a_cause;
CREATE UNIQUE INDEX one_open_alert_a_cause ON control.alerts (kind, fingerprint, tenant_id) NULLS NOT DISTINCT
    WHERE resolved_at IS NULL;

CREATE TABLE control.alert_notifications (
    notification_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    alert_id        bigint NOT NULL REFERENCES control.alerts ON DELETE CASCADE,
    change          text NOT NULL CHECK (change IN ('opened', 'resolved')),
    noted_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Whether each channel of that time has its row in alert_deliveries.
    is_addressed    boolean NOT NULL DEFAULT false,
    UNIQUE (alert_id, change)
);
CREATE INDEX notifications_to_address ON control.alert_notifications (notification_id) WHERE NOT is_addressed;

CREATE FUNCTION control.note_alert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO control.alert_notifications (alert_id, change)
    VALUES (NEW.alert_id, CASE WHEN NEW.resolved_at IS NULL THEN 'opened' ELSE 'resolved' END);
    RETURN NULL;
END $$;
CREATE TRIGGER note_opened AFTER INSERT ON control.alerts FOR EACH ROW EXECUTE FUNCTION control.note_alert();
CREATE TRIGGER note_resolved AFTER UPDATE OF resolved_at ON control.alerts FOR EACH ROW
    WHEN (OLD.resolved_at IS NULL AND NEW.resolved_at IS NOT NULL) EXECUTE FUNCTION control.note_alert();

-- What is open already has never been told.
INSERT INTO control.alert_notifications (alert_id, change)
SELECT alert_id, 'opened' FROM control.alerts WHERE resolved_at IS NULL;

-- How each channel answers.
CREATE TABLE control.alert_channels (
    -- Its schema and a hash of its URL, which holds secrets and is stored nowhere.
    channel         text PRIMARY KEY,
    failures        integer NOT NULL DEFAULT 0,
    failing_since   timestamptz,
    next_attempt_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_error      text,
    sent_at         timestamptz,
    CHECK ((failures > 0) = (failing_since IS NOT NULL))
);

CREATE TABLE control.alert_deliveries (
    channel         text NOT NULL REFERENCES control.alert_channels ON DELETE CASCADE,
    notification_id bigint NOT NULL REFERENCES control.alert_notifications ON DELETE CASCADE,
    sent_at         timestamptz,
    PRIMARY KEY (channel, notification_id)
);
CREATE INDEX deliveries_to_send ON control.alert_deliveries (channel, notification_id) WHERE sent_at IS NULL;
CREATE INDEX ON control.alert_deliveries (notification_id);

-- A number that should move, and since when it has not.
CREATE TABLE control.alert_marks (
    name  text PRIMARY KEY,
    value bigint NOT NULL,
    since timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- What Dagster's sensors and schedules did last, as one of the sensors reports it.
CREATE TABLE control.sensor_ticks (
    name        text PRIMARY KEY,
    -- How often it should tick; NULL: a schedule.
    interval_s  double precision,
    ticked_at   timestamptz,
    error       text,
    reported_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX exhausted_dead_letters ON queue.dead_letters (tenant_id, fingerprint) WHERE state = 'exhausted';
CREATE INDEX drifting_results ON reconcile.results (tenant_id) WHERE missing + extra + mismatched > 0;
