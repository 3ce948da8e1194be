"""`demo`: the whole migration in a few minutes, on real servers, measured.

    story.py     the acts, in order                      stage.py   the platform that it plays on, in a home of its own
    traffic.py   one day of 400 tenants, as a plan       sender.py  plays it, as a process; playing.py: our side of it
    screen.py    live progress in the terminal           figures.py what is read from the database
    report.py    figures, promises, the table            page.py    the same as a page with charts

It touches nothing of the user's: its platform lives in ``home/demo``, which every demo starts anew. When an act fails,
the logs are in ``home/demo/logs``.
"""
