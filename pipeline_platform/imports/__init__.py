"""Bringing history in: an operator's file straight into the queue, with received_at taken from its events.

source.py reads the file and says which hour each line belongs to; importer.py writes hour by hour, chunk by chunk.
"""
