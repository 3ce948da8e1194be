"""The metrics that Prometheus reads.

catalogue: all metrics; scrape: those from PostgreSQL, served by endpoint; processes: those that each process counts.
Reads only. The account is the source of truth, not the metrics.
"""
