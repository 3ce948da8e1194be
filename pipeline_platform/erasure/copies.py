"""Erases what is in no batch of the platform: quarantined events, the old pipeline's rows, copies, and traits."""

from collections import Counter

import redis

from pipeline_platform.db import queries
from pipeline_platform.erasure.plan import one_row
from pipeline_platform.erasure.run import Run
from pipeline_platform.lookups import LookupKey

_SQL = queries("erasure")
_REDIS_S = 5.0


def erase_copies(run: Run) -> None:
    """Erase what the quarantine, the old pipeline and replays keep of the person."""
    run.progress("copies")
    params = run.params
    quarantined = run.conn.execute(_SQL["empty_quarantined"], params | {"ids": run.marked("quarantine")}).rowcount
    legacy = run.conn.execute(_SQL["delete_legacy"], params).rowcount
    run.changed(Counter(quarantine=quarantined, legacy=legacy))
    for table in ("scratch", "before_images"):
        rows = run.conn.execute(_SQL[f"delete_{table}"], params).rowcount
        run.changed(Counter({f"replay.{table}": rows}))


def erase_traits(run: Run) -> None:
    """Erase traits, also from the cache and from rows of later events that the old traits were copied into."""
    run.progress("traits")
    run.changed(Counter(traits=run.conn.execute(_SQL["delete_traits"], run.params).rowcount))
    run.wait_for_older()
    _forget(run)
    run.wait_for_older()
    run.conn.execute(_SQL["strip_traits"], run.params)
    (group_traits,) = one_row(run.conn, "group_traits", run.params)
    if group_traits:
        run.erasure.not_ours.append(f"{group_traits} traits of groups that this person's events set: the group's")


def _forget(run: Run) -> None:
    """Delete the person's traits from the cache. A cache that does not answer forgets them by itself."""
    names = [LookupKey("user", run.person.tenant_id, user).cache_key for user in sorted(run.person.users)]
    try:
        with redis.Redis.from_url(  # pyright: ignore[reportUnknownMemberType]
            run.settings.redis_url, socket_timeout=_REDIS_S, socket_connect_timeout=_REDIS_S, protocol=2
        ) as cache:
            cache.delete(*names, *(f"flight:{name}" for name in names))
    except (redis.RedisError, OSError) as error:
        run.erasure.not_ours.append(
            f"the look-up cache does not answer ({error}): its copies go within {run.settings.lookup_ttl_s:.0f} s"
        )
