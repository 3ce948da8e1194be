"""Erasure: a person's events and traits are removed everywhere; the account stays exact to the event.

person.py finds the ids of a person. scan.py reads the ids of all events that are kept as bytes, and plan.py counts what
it finds. outcomes.py removes occurrences of events from the tables and changes the account. batches.py and archives.py
empty their bytes; rows.py and copies.py erase what is outside of batches. erase.py runs all of it, in an order that is
safe beside workers, imports and recoveries. run.py is what the steps share.

Three things are kept: the number of events, their identities (so that they are duplicates if they are sent again), and
tombstones, which are hashes. An erased event was delivered, dead-lettered or in flight, and then counts as discarded.
"""
