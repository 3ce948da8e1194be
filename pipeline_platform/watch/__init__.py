"""Monitoring for people: alerts, console, reports, health checks."""
