"""Unchanged SDKs, from the package registry, against the real gateway."""

import json
from typing import Any

import pytest

from pipeline_platform.event.types import EventType, event_id_of
from pipeline_platform_tests.support.gateway import Gateway, Start
from pipeline_platform_tests.support.sdks import AT, SDKS, TYPES, call_everything, make_client

sdks = pytest.mark.parametrize("sdk", SDKS)


def send_everything(gateway: Gateway, sdk: str, **options: Any) -> list[str]:
    errors: list[Any] = []
    client = make_client(sdk, gateway.process.url, gateway.key, errors, **options)
    message_ids = call_everything(client)
    if not options.get("sync_mode"):
        client.flush()
        client.join()
    assert errors == []
    return message_ids


@sdks
def test_every_call_in_every_way(gateway: Gateway, sdk: str) -> None:
    ways: list[dict[str, Any]] = [{"gzip": True}, {"gzip": False}, {"sync_mode": True}, {"upload_size": 1}]
    for options in ways:
        message_ids = send_everything(gateway, sdk, **options)
        rows = gateway.conn.execute(
            "SELECT event_id, type::text, client_at, tenant_id FROM queue.events ORDER BY batch_id, event_index"
        ).fetchall()[-6:]
        expected = zip(message_ids, TYPES, strict=True)
        # Several connections of one client may overtake each other.
        assert {row[:2] for row in rows} == {(event_id_of(one), EventType(kind).code) for one, kind in expected}
        assert {row[3] for row in rows} == {gateway.tenant_id}
        assert [row[2] for row in rows if row[1] == "t"] == [AT]
    assert (gateway.stored, gateway.quarantined) == (24, 0)


@sdks
def test_what_an_sdk_sends_that_is_no_json_costs_no_neighbour(gateway: Gateway, sdk: str) -> None:
    errors: list[Any] = []
    client = make_client(sdk, gateway.process.url, gateway.key, errors)
    for number in range(20):
        client.track("u", "Measured", {"value": float("nan") if number == 7 else number}, message_id=f"m{number}")
    client.flush()
    client.join()
    assert errors == []
    assert (gateway.stored, gateway.quarantined) == (19, 1)
    kept = gateway.conn.execute("SELECT message_id, code, convert_from(payload, 'UTF8') FROM queue.quarantine")
    [(message_id, code, payload)] = kept
    assert (message_id, code) == ("m7", "invalid_json")
    assert json.loads(payload)["event"] == "Measured"


@sdks
def test_an_sdk_comes_again_after_not_now(start: Start, sdk: str) -> None:
    gateway = start(tenant_events_per_s_max="10")
    errors: list[Any] = []
    client = make_client(sdk, gateway.process.url, gateway.key, errors, upload_size=15)
    for number in range(45):
        client.track("u", "Clicked", message_id=f"m{number}")
    client.flush()
    client.join()
    assert errors == []
    assert gateway.stored == 45
    assert gateway.count("SELECT count(DISTINCT event_id) FROM queue.events") == 45


@sdks
def test_an_sdk_is_told_about_a_wrong_key(gateway: Gateway, sdk: str) -> None:
    errors: list[Any] = []
    client = make_client(sdk, gateway.process.url, "nobody", errors)
    client.track("u", "Clicked")
    client.flush()
    client.join()
    [(error, _)] = errors
    assert (error.status, error.code) == (401, "unknown_write_key")
    assert gateway.stored == 0
