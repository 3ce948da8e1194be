"""A realistic simulation of the old pipeline: API gateway, queue, look-up and write functions.

No durability before the acknowledgement, no retry, no dead letters, no idempotency. It loses events only by its own
mechanisms: throttling, time-outs, crashes. The modules: gateway.py receives requests, functions.py processes them,
queueing.py is the queue between, rows.py reads events, capacity.py has the limits of each stage, counts.py is its
instrumentation.
"""
