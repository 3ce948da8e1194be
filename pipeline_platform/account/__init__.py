"""The account of every event, read three ways: counted (funnel), recounted from the rows (audit), and for one event
(trace). Reads only: nothing here ever changes a number.
"""
