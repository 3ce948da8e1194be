"""Moving from an old pipeline. All of it can be deleted once nobody migrates."""
