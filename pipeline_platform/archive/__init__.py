"""Keeps hours beyond the retention as Parquet files, written and verified before they are dropped, and restores them.

files.py writes and reads the files. hours.py archives, verifies and restores hours. hold.py excludes concurrent
erasures. Archiving is off while the setting archive_url is empty; archived hours stay readable then.
"""
