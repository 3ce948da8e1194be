"""Who may send: tenants and their write keys."""
