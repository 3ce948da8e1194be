"""An event pipeline that accounts for every event."""
