"""`up` and `down`: the whole platform as one tree of processes that starts, restarts and stops together.

    run.py        the two commands, in order         detach.py     `up --detach`        screen.py  what they print
    children.py   start, restart with backoff, stop in reverse order
    programs.py   gateway, worker pool and embedded servers as children; dagster.py: Dagster's three processes
    leftovers.py  find what a killed platform left   watchman.py   end it at once

It has no state of its own: everything that a child needs is in the home and in its environment.
"""
