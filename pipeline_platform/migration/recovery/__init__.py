"""Recovery: puts events into production that the old pipeline dropped while it was production."""
