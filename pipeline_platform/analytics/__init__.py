"""The data that a tenant's users see: roll-ups for dashboards, exports of events, and the check that both agree.

`rollups` maintains the table analytics.rollups. `export` streams a tenant's events to a file. `agreement` compares both
with each other and with the account. Nothing here writes events.
"""
