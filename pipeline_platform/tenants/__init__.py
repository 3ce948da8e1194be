"""Tenants and their write keys."""
