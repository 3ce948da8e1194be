"""Everything that is stored, searched for one value: all tables of all schemas, bytes decompressed, and Redis."""

from typing import Any, LiteralString, cast

import psycopg
import redis
import zstandard

_TABLES = """
SELECT format('%I.%I', n.nspname, c.relname)
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'v', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
  AND n.nspname NOT LIKE 'pg_toast%' AND n.nspname NOT LIKE 'pg_temp%'
ORDER BY 1
"""


def places_of(conn: psycopg.Connection[Any], redis_url: str, value: str) -> dict[str, int]:
    """How often each place holds the value: rows by table, values by Redis key. Empty: it is nowhere."""
    found = tables_with(conn, value)
    sought = value.encode()
    for (payload,) in conn.execute("SELECT payload FROM queue.batches WHERE codec = 'zstd'").fetchall():
        if sought in zstandard.ZstdDecompressor().decompress(payload):
            found["queue.batches (decompressed)"] = found.get("queue.batches (decompressed)", 0) + 1
    with redis.Redis.from_url(redis_url) as cache:
        for key in cache.scan_iter():
            kept: Any = cache.dump(key)
            if sought in key or sought in (kept or b""):
                found[f"redis {key!r}"] = 1
    return found


def tables_with(conn: psycopg.Connection[Any], value: str) -> dict[str, int]:
    """How many rows of each table of a database hold the value, as text or as bytes."""
    found: dict[str, int] = {}
    for (table,) in conn.execute(_TABLES).fetchall():
        cursor = conn.cursor(binary=False).execute(cast("LiteralString", f"SELECT to_jsonb(t)::text FROM {table} AS t"))
        for (text,) in cursor:
            if any(form in text for form in (value, value.encode().hex())):
                found[table] = found.get(table, 0) + 1
    return found
