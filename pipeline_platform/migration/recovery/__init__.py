"""Recovery: events that the old pipeline dropped while it was production are put into production."""
