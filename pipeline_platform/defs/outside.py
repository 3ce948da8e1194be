"""What is before and after the platform, so that lineage does not end at it. Nothing here can be materialized.

Add the assets of your own code location to it: an asset of yours that depends on `warehouse_tables` or `dashboards`
shows where its data come from.
"""

from typing import Any

import dagster as dg

from pipeline_platform.defs.policies import OWNERS, PERSONAL_DATA

_common: dict[str, Any] = {"group_name": "outside", "owners": OWNERS}

CLIENTS = dg.AssetSpec(
    "clients",
    description="The SDKs, browsers and servers that send events to the gateway, and files that are imported.",
    kinds={"segment", "rudderstack"},
    tags=PERSONAL_DATA,
    **_common,
)

LEGACY_OUTPUT = dg.AssetSpec(
    "legacy_output",
    description="What the pipeline that is replaced has delivered: legacy.output, the simulated one's or a table of "
    "your own.",
    kinds={"postgres", "table"},
    tags=PERSONAL_DATA,
    **_common,
)

DASHBOARDS = dg.AssetSpec(
    "dashboards",
    deps=["rollups", "daily_report"],
    description="What reads the roll-ups: the console, the daily report and dashboards of your own.",
    kinds={"dashboard"},
    **_common,
)

WAREHOUSE_TABLES = dg.AssetSpec(
    "warehouse_tables",
    deps=["exported_hours"],
    description="Tables of a warehouse that are loaded from the exported hours, or follow the publication.",
    kinds={"table"},
    tags=PERSONAL_DATA,
    **_common,
)

DEFS = dg.Definitions(assets=[CLIENTS, LEGACY_OUTPUT, DASHBOARDS, WAREHOUSE_TABLES])
