"""The columns of the tables and files behind assets, for each asset's page. A test compares them with the tables."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

_EVENT_ID = ("event_id", "uuid", "The identity: the messageId if it is a UUID, else a UUIDv5 of it.")
_EXPORTED = [
    ("message_id", "text", "The client's messageId as it was sent."),
    ("type", "text", "track, identify, page, screen, group or alias."),
    ("name", "text", "The event's or page's name."),
    ("user_id", "text", "Who; numbers as text."),
    ("anonymous_id", "text", "Who, before they were known."),
    ("group_id", "text", "The group of the person."),
    ("previous_id", "text", "The earlier id that an alias names."),
    ("occurred_at", "timestamptz", "The client's time, corrected by its clock's error; else received_at."),
    ("received_at", "timestamptz", "The database's clock at acceptance; of imported events the time from the file."),
    ("delivered_at", "timestamptz", "The database's clock at the load."),
    ("properties", "jsonb", "The client's JSON."),
    ("traits", "jsonb", "The client's JSON."),
    ("context", "jsonb", "The client's JSON; the request's context lies under it."),
    ("user_traits", "jsonb", "What was known of the user when it was processed."),
    ("group_traits", "jsonb", "What was known of the group when it was processed."),
    ("rest", "jsonb", "The client's JSON that has no column of its own."),
]
_EVENTS = [
    ("tenant_id", "integer", "The tenant."),
    _EVENT_ID,
    *_EXPORTED,
    ("tenant_name", "text", "The tenant's name as known when it was processed."),
    ("tenant_plan", "text", "The tenant's plan as known when it was processed."),
    ("batch_id", "bigint", "The batch that it came in."),
    ("epoch", "integer", "The epoch that its batch was stamped with."),
    ("recovery_id", "bigint", "The recovery that brought it into production, if one did."),
    ("replay_id", "bigint", "The replay that wrote it last, if one did."),
    ("digest", "bigint", "For comparing it with the old pipeline's; computed when it is needed."),
]
_ROLLUPS = [
    ("tenant_id", "integer", "The tenant."),
    ("hour", "timestamptz", "The hour of occurred_at."),
    ("received_hour", "timestamptz", "The hour of received_at."),
    ("type", "text", "track, identify, page, screen, group or alias."),
    ("name", "text", "The event's or page's name."),
    ("events", "bigint", "The number of events."),
]
_FILE = [
    ("tenant_id", "integer", "The tenant."),
    ("tenant", "text", "The tenant's name when the hour was exported."),
    _EVENT_ID,
    *_EXPORTED,
]


def _described(columns: list[tuple[str, str, str]], table: str = "") -> Mapping[str, Any]:
    schema = dg.TableSchema([dg.TableColumn(name, kind, description=text) for name, kind, text in columns])
    return {"dagster/column_schema": schema, **({"dagster/table_name": table} if table else {})}


EVENTS = _described(_EVENTS, "analytics.events")
ROLLUPS = _described(_ROLLUPS, "analytics.rollups")
EXPORTED_FILE = _described(_FILE)
