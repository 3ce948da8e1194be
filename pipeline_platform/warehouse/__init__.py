"""Exports hours for a warehouse: one Parquet file of delivered events and one manifest for each version of an hour.

files.py writes and reads the files. manifest.py says what a version holds. hours.py exports, proves and removes
versions. due.py knows which hours have to be exported. Exports are off while the setting warehouse_url is empty.
"""
