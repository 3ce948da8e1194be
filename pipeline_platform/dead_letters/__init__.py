"""Stores, lists, redrives, discards and readmits events that could not be processed or accepted."""
