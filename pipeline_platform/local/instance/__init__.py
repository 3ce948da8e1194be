"""Dagster's instance: its configuration and the parts of it that are ours.

    dagster.yaml   the base; configuration.py merges it with what the user changed in DAGSTER_HOME/dagster.yaml
    storage.py     PostgreSQL with a pool of connections      launcher.py   starts each run as a process of its own
    run_files.py   which run has a living process             watcher.py    finds runs whose process ended or hangs
    internals.py   the private names of Dagster that these use

`up` uses all of it. A plain `dagster dev` in a checkout uses none of it: it has a temporary instance of its own.
"""
