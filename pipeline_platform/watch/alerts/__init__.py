"""Alerts: what a person is told, by whom it is found, and how it is sent. catalogue.py lists all kinds.

Workers, the circuit, archives and replays open some themselves (control.alerts); conditions.py finds the others. One
small process, process.py, looks and delivers; Dagster's sensors look too, and Dagster is not needed.
"""
