"""The console: one live page that says whether anything is lost, how late it is, and for whom. It only reads.

    snapshot.py   what the database says, of everything or of one tenant
    last_hour.py  the last hour of it: rates, and what the charts are drawn from
    verdict.py    the answer in three short sentences
    page.py       the page and its sections as HTML; charts.py: the charts in them
    watch.py      one loop that reads for all who look, and tells them what changed
    access.py     who may look, and the headers that keep the page to itself
    app.py        the routes

A change reaches the page as the HTML of the sections that it is in, over server-sent events; static/console.js puts
them into the page without touching what stayed the same. While PostgreSQL is away the page says since when, and shows
what it knew last.
"""
