"""Moving from an old pipeline. Can be deleted when no migration is needed."""
