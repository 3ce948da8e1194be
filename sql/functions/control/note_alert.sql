-- Adds a notification when an alert is opened or resolved.
CREATE OR REPLACE FUNCTION control.note_alert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO control.alert_notifications (alert_id, change)
    VALUES (NEW.alert_id, CASE WHEN NEW.resolved_at IS NULL THEN 'opened' ELSE 'resolved' END);
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER note_opened AFTER INSERT ON control.alerts FOR EACH ROW EXECUTE FUNCTION control.note_alert();

CREATE OR REPLACE TRIGGER note_resolved AFTER UPDATE OF resolved_at ON control.alerts FOR EACH ROW
    WHEN (OLD.resolved_at IS NULL AND NEW.resolved_at IS NOT NULL) EXECUTE FUNCTION control.note_alert();
