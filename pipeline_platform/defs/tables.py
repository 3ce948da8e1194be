"""Per-tenant tables as metadata: the largest tenants by name and the others in one row, to keep events small."""

from collections.abc import Mapping, Sequence

import dagster as dg

# The rows of four hundred tenants, three assets and 72 hours would store megabytes for each backfill.
_ROWS_MAX = 20

COUNTED = dg.TableSchema([dg.TableColumn("tenant"), dg.TableColumn("events", "number")])

Row = Mapping[str, str | int | float | None]


def tenant_table(rows: Sequence[Row], columns: Sequence[str]) -> dg.TableMetadataValue:
    """A table of `tenant` and `columns` from rows sorted by size. The row of the others has no latencies."""
    shown: list[Row] = [{name: row[name] for name in ("tenant", *columns)} for row in rows[:_ROWS_MAX]]
    rest = rows[_ROWS_MAX:]
    if rest:
        shown.append({"tenant": f"{len(rest)} others"} | {name: _total(rest, name) for name in columns})
    schema = dg.TableSchema([dg.TableColumn("tenant"), *(dg.TableColumn(name, "number") for name in columns)])
    return dg.MetadataValue.table([dg.TableRecord(dict(row)) for row in shown], schema)


def _total(rows: Sequence[Row], name: str) -> int | None:
    values = [row[name] for row in rows]
    return sum(value for value in values if isinstance(value, int)) if not name.endswith("_ms") else None
