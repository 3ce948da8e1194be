"""Self-contained reports: `frame` has the common parts of pages, `daily` counts a day, `daily_page` renders it.

Each page is one HTML file that includes the charts' library and loads nothing from elsewhere.
"""
