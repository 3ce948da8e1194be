"""Cached look-ups: whatever Redis holds, what they say is what PostgreSQL says."""

import json
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import redis

from pipeline_platform.event.types import TenantId
from pipeline_platform.lookups import TRAITS_BYTES_MAX, TRAITS_MAX, LookupKey, Lookups
from pipeline_platform.settings import Settings
from pipeline_platform.worker.known_traits import Subject, Trait

Conn = psycopg.Connection[Any]
_AT = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def cache(settings: Settings) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(settings.redis_url) as client:
        yield client


def learn(conn: Conn, tenant: int, subject: str, name: str, value: str, minutes: int = 0, event: int = 1) -> None:
    conn.execute(
        "INSERT INTO control.traits VALUES (%s, 'user', %s, %s, %s, %s, %s)",
        (tenant, subject, name, value, _AT + timedelta(minutes=minutes), uuid.UUID(int=event)),
    )


def _as_list(client: "redis.Redis", key: str, value: bytes) -> None:
    client.delete(key)
    client.rpush(key, value)


FORGERIES: dict[str, Callable[["redis.Redis", str, bytes], object]] = {
    "the mark of before and broken JSON": lambda client, key, _: client.set(key, b"1:{broken"),
    "the mark of before and an array": lambda client, key, _: client.set(key, b"1:[]"),
    "JSON that could be true": lambda client, key, _: client.set(key, b'{"name":"forged","plan":"forged"}'),
    "a good head and other JSON": lambda client, key, value: client.set(key, value[:24] + b'{"name":"forged"}'),
    "a later expiry": lambda client, key, value: client.set(key, value[:16] + b"\x7f" * 8 + value[24:]),
    "one bit": lambda client, key, value: client.set(key, value[:-1] + bytes([value[-1] ^ 1])),
    "the head alone": lambda client, key, value: client.set(key, value[:24]),
    "part of the head": lambda client, key, value: client.set(key, value[:20]),
    "nothing": lambda client, key, _: client.set(key, b""),
    "a list": _as_list,
    "a number": lambda client, key, _: client.set(key, 1),
    "what is nothing to know": lambda client, key, _: client.set(key, b"\0" * 24),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_what_was_forged_or_broken_is_read_from_postgresql(
    conn: Conn, tenant: TenantId, lookups: Lookups, cache: "redis.Redis", forgery: str
) -> None:
    learn(conn, tenant, "u1", "plan", '"pro"')
    keys = [LookupKey("tenant", tenant), LookupKey("user", tenant, "u1"), LookupKey("user", tenant, "nobody")]
    known = lookups.get(conn, keys)
    assert lookups.get(conn, keys) == known
    assert (lookups.hits, lookups.misses) == (3, 3)
    for key in keys:
        value: Any = cache.get(key.cache_key)
        FORGERIES[forgery](cache, key.cache_key, value)
    assert lookups.get(conn, keys) == known == lookups.read(conn, keys)
    assert lookups.hits == 3 or (forgery == "the head alone" and lookups.hits == 4), "nothing known is a head alone"


def test_a_value_of_another_key_or_of_another_database_is_a_miss(
    conn: Conn, tenant: TenantId, lookups: Lookups, cache: "redis.Redis", settings: Settings
) -> None:
    learn(conn, tenant, "u1", "plan", '"pro"')
    mine, other = LookupKey("user", tenant, "u1"), LookupKey("user", tenant, "u2")
    known = lookups.get(conn, [mine, other])
    value: Any = cache.get(mine.cache_key)
    cache.set(other.cache_key, value)
    assert lookups.get(conn, [mine, other]) == known

    conn.execute("UPDATE control.cache_key SET key = sha256(key)")
    conn.execute("UPDATE control.traits SET value = '\"free\"'")
    elsewhere = Lookups(settings, settings.redis_url)
    assert json.loads(elsewhere.get(conn, [mine])[mine]) == {"plan": "free"}
    elsewhere.close()


def test_a_value_that_redis_kept_too_long_is_a_miss(
    conn: Conn, tenant: TenantId, settings: Settings, cache: "redis.Redis"
) -> None:
    lookups = Lookups(settings.model_copy(update={"lookup_ttl_s": 0.001}), settings.redis_url)
    key = LookupKey("tenant", tenant)
    known = lookups.get(conn, [key])
    content = (0).to_bytes(8) + known[key]
    cache.set(key.cache_key, lookups._signature(key.cache_key, content) + content)  # pyright: ignore[reportPrivateUsage]
    lookups.hits = 0
    assert lookups.get(conn, [key]) == known
    assert lookups.hits == 0
    lookups.close()


def plant_many(conn: Conn, tenant: int) -> dict[str, list[str]]:
    """Users at the bounds, and the names that a row of each gets."""
    size = TRAITS_BYTES_MAX // 4
    for minutes, name in enumerate("abcdef"):
        learn(conn, tenant, "large", name, json.dumps("x" * (size - 3)), minutes)
        learn(conn, tenant, "with one too large", name, json.dumps(name), minutes)
    learn(conn, tenant, "with one too large", "huge", json.dumps("x" * TRAITS_BYTES_MAX), 9)
    learn(conn, tenant, "exactly", "k", json.dumps("x" * (TRAITS_BYTES_MAX - 3)))
    learn(conn, tenant, "one more", "k", json.dumps("x" * (TRAITS_BYTES_MAX - 2)))
    learn(conn, tenant, "compact", "n", "1e9000")
    for number in range(TRAITS_MAX + 10):
        learn(conn, tenant, "many", f"t{number:03}", "1", minutes=number // 2, event=number % 2)
    for name in ("Z", "a", "é", "ä", "B"):
        learn(conn, tenant, "of one event", name, json.dumps("x" * 2_700))
    return {
        "large": ["c", "d", "e", "f"],
        "with one too large": ["a", "b", "c", "d", "e", "f"],
        "exactly": ["k"],
        "one more": [],
        "compact": [],
        "many": [f"t{number:03}" for number in range(10, TRAITS_MAX + 10)],
        "of one event": ["B", "Z", "a"],
    }


def test_a_row_gets_the_newest_traits_up_to_a_number_and_a_size(conn: Conn, tenant: TenantId, lookups: Lookups) -> None:
    """By both ways of reading: together, and one by one where the claim itself changes them."""
    expected = plant_many(conn, tenant)
    keys = {user: LookupKey("user", tenant, user) for user in expected}
    known = lookups.get(conn, keys.values())
    subjects = {key: Subject() for key in keys.values()}
    for _, kind, tenant_id, subject_id, name, at, event_id, size, value in lookups.read_apart(conn, list(subjects), []):
        subjects[LookupKey(kind, tenant_id, subject_id)].learn(name, Trait(at, event_id, size, value))
    for user, names in expected.items():
        assert sorted(json.loads(known[keys[user]] or b"{}")) == names, user
        assert json.loads(subjects[keys[user]].text() or b"{}") == json.loads(known[keys[user]] or b"{}"), user
        assert len(known[keys[user]]) <= TRAITS_BYTES_MAX + 6 * TRAITS_MAX
    assert lookups.left_out == 2 + 1 + 1 + 1 + 2


def test_a_trait_is_known_as_postgresql_writes_it(conn: Conn, tenant: TenantId, lookups: Lookups) -> None:
    brought = [("n", b'{ "a": 1e3,   "a": 2.50 }'), ("big", b"1e131071")]
    found = lookups.read_apart(conn, [], brought)
    assert [(row[0], row[4], row[8]) for row in found] == [(1, "n", '{"a": 2.50}'), (2, "big", None)]
