-- name: forward_to_simulation
-- Configures the mirror for the simulated legacy pipeline, which settles within the visibility time-out of its queue.
UPDATE control.legacy_target SET forward_url = %s, retries = 0, settle_s = 2, output_table = NULL

-- name: forget_sensors
-- Deletes all ticks of sensors.
DELETE FROM control.sensor_ticks

-- name: expect_sensors
-- Expects ticks of the sensor that reports on all sensors. From this moment on it counts as silent if it does not
-- report.
INSERT INTO control.sensor_ticks (name) VALUES ('sensor_reports')
