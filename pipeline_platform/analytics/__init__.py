"""What the customers of our users see: roll-ups for their dashboards, exports of their events, and that both agree.

`rollups` keeps the table analytics.rollups right, `export` streams a tenant's events out, `agreement` holds the two and
the account against each other. Nothing here writes events.
"""
