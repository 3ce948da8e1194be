-- name: note
-- Adds an entry to the audit log.
INSERT INTO control.audit_log (actor, action, reason, detail) VALUES (%(actor)s, %(action)s, %(reason)s, %(detail)s)
