"""`demo`: the whole migration in a few minutes, on real servers, measured.

    story.py     the acts, in order                      platform.py the demo's platform, in its own home
    operator.py  phases, comparisons, Dagster runs       sending.py  the traffic of an act, and what was acknowledged
    traffic.py   one day of 400 tenants, as a plan       sender.py   sends it, as a process; playing.py: its controller
    screen.py    live progress in the terminal           figures.py  figures read from the database
    measuring.py what only the acts measure              report.py   figures, promises, the table; page.py: as a page

It does not touch the user's data: its platform is in ``home/demo``, which every demo creates anew. If an act fails, the
logs are in ``home/demo/logs``.
"""
