"""Runs of Dagster on several machines, by Celery. Needs the extra `celery`; nothing else of the platform needs this.

launcher.py is the `run_launcher` of dagster.yaml: it sends each run to a queue on the platform's Redis. worker.py is
the Celery app of the workers. sign_of_life.py tells whether the process of a run lives, on whatever machine.
"""
