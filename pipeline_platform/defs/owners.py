"""Who answers for the definitions: one team, until a deployment has more."""

OWNERS = ["team:platform"]

# Metadata of jobs, schedules and sensors, whose own parameter is beta and warns at every start.
OWNED = {"owner": OWNERS[0]}
