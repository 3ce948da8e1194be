"""Erasure: a person's events and traits are removed everywhere; the account still holds to the event.

person.py finds the ids that a person is known by; scan.py reads them out of all that is kept as bytes; outcomes.py
takes occurrences of events out of the tables and changes the account; batches.py empties their bytes in the queue;
erase.py does all of it, in an order that is safe beside workers, imports and recoveries.

What is kept: that there were so many events, their identities (sent again, they are duplicates), and tombstones, which
are hashes. An erased event was delivered, dead or in flight before, and counts as discarded from then on.
"""
