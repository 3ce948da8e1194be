"""The account of every event: counted (funnel), recounted from the rows (audit), and for one event (trace).

Reads only.
"""
