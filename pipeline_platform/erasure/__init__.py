"""Erasure: a person's events and traits are removed everywhere; the account stays exact to the event.

person.py finds the ids of a person. scan.py reads the ids of all events that are kept as bytes. outcomes.py removes
occurrences of events from the tables and changes the account. batches.py empties their bytes in the queue. erase.py
runs all of it, in an order that is safe beside workers, imports and recoveries.

Three things are kept: the number of events, their identities (so that they are duplicates if they are sent again), and
tombstones, which are hashes. An erased event was delivered, dead-lettered or in flight, and then counts as discarded.
"""
