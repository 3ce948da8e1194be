"""Imports events of the past: an operator's file is written into the queue, with received_at taken from its events.

source.py reads the file and finds the hour of each line. importer.py writes hour by hour, chunk by chunk.
"""
