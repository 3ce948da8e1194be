"""Beyond the retention: hours as Parquet files, written and verified before they are dropped, and taken back.

files.py writes and reads the files; hours.py archives, verifies and restores hours; hold.py keeps erasures apart. Off
while the setting archive_url is empty; hours that are archived stay readable when it is emptied.
"""
