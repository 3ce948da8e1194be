"""The console: one live page that says whether anything is lost, how late it is, and for whom. It only reads.

    snapshot.py   reads the state of the platform or of one tenant from the database
    last_hour.py  the last hour of that state: rates, and the data of the charts
    verdict.py    the answer in three short sentences
    page.py       the page and its sections as HTML; charts.py: the charts in them
    watch.py      one loop that reads for all viewers, and sends them changes
    access.py     access control and security headers
    app.py        the routes

A change is sent as the HTML of the sections that contain it, over server-sent events. static/console.js updates only
the changed parts of the page. While PostgreSQL is unreachable the page says since when, and shows the last known state.
"""
