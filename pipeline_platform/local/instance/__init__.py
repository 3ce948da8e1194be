"""Dagster's instance: its configuration and the parts of it that are ours.

    dagster.yaml   the base; configuration.py merges it with what the user changed in DAGSTER_HOME/dagster.yaml
    storage.py     PostgreSQL with a pool of connections      launcher.py   starts each run as a process of its own
    run_files.py   which run has a living process             watcher.py    finds runs whose process ended or hangs

`up` uses all of it. Dagster's own commands in a checkout use none of it: they have a temporary instance, described by
dagster.yaml at the top of the checkout.
"""
