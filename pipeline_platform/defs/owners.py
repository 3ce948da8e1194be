"""The owner of all definitions: one team, until a deployment has more."""

OWNERS = ["team:platform"]

# Set as metadata on jobs, schedules and sensors: their own parameter is beta and warns at every start.
OWNED = {"owner": OWNERS[0]}
