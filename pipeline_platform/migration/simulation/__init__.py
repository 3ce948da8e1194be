"""An old pipeline, simulated honestly: API gateway, queue, look-up and write functions, as its owners built it.

No durability before the acknowledgement, no retry, no dead letters, no idempotency. It loses events by its own
mechanisms only: throttling, time-outs, crashes. The map: gateway.py takes requests in, functions.py works them off,
queueing.py is the queue between, rows.py reads events, capacity.py says how much each stage can do, counts.py is its
instrumentation.
"""
