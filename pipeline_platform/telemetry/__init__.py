"""Logs, traces and metrics of the platform."""
