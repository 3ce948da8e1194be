-- name: forward_to_simulation
-- It settles within the visibility time-out of its queue.
UPDATE control.legacy_target SET forward_url = %s, retries = 0, settle_s = 2, output_table = NULL

-- name: forget_sensors
DELETE FROM control.sensor_ticks

-- name: expect_sensors
-- The sensor that reports on all sensors: from now on it is silent where it does not.
INSERT INTO control.sensor_ticks (name) VALUES ('sensor_reports')
