"""Embedded real servers: PostgreSQL and Redis on loopback, under the home. They end with the process that started them.

    with start_postgres(home) as postgres, start_redis(home) as redis: ...

The user's own servers (PIPELINE_DATABASE_URL, PIPELINE_REDIS_URL) are never started or stopped here.
"""

from pipeline_platform.local.services.endpoints import Endpoints, connected, read_endpoints
from pipeline_platform.local.services.orphans import end_orphans
from pipeline_platform.local.services.postgres import ensure_database, start_postgres
from pipeline_platform.local.services.redis import start_redis
from pipeline_platform.local.services.server import Server

__all__ = [
    "Endpoints",
    "Server",
    "connected",
    "end_orphans",
    "ensure_database",
    "read_endpoints",
    "start_postgres",
    "start_redis",
]
