"""The numbers that Prometheus reads: what there is (catalogue), what PostgreSQL knows (scrape, served by endpoint), and
what each process counts of itself (processes). Reads only; a number is never the truth, the account is.
"""
