"""Reports as files that explain themselves: `frame` is what pages share, `daily` counts a day, `daily_page` shows it.

Each page is one HTML file with the charts' library inside; nothing is fetched from anywhere.
"""
