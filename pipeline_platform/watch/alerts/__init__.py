"""Alerts: what opens them, what they say, and how they are delivered. catalogue.py lists all kinds.

Workers, the circuit, archives and replays open some themselves (control.alerts); conditions.py finds the others. One
small process, process.py, checks the conditions and delivers. Dagster's sensors also check, but are not required.
"""
