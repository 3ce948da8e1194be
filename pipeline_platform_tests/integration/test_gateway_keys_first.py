"""The key before everything else: what a client without one may cost, and what a tenant may."""

import gzip
import json
from typing import Any

import httpx

from pipeline_platform_tests.support.gateway import Gateway, Start, assert_refused, event
from pipeline_platform_tests.support.tenants import add_tenant
from pipeline_platform_tests.support.waiting import wait_for

# Not valid JSON, and of as many tokens as fit into its size.
DENSE = b'{"batch":[NaN' + b",[]" * 300_000 + b"]}"


def post(gateway: Gateway, path: str, body: bytes | dict[str, Any], **headers: str) -> httpx.Response:
    """Without a key in the head."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return gateway.client.post(
        path, content=content, headers={name.replace("_", "-"): headers[name] for name in headers}
    )


def test_without_a_key_a_body_is_never_taken_apart(gateway: Gateway) -> None:
    bombs = [gzip.compress(DENSE), gzip.compress(DENSE.replace(b"NaN", b"1", 1))]
    before = gateway.process.process.cpu_times().user
    for _ in range(10):
        for bomb in bombs:
            assert_refused(post(gateway, "/v1/batch", bomb, content_encoding="gzip"), 401, "missing_write_key")
            assert_refused(
                gateway.post("/v1/batch", bomb, key="nobody", content_encoding="gzip"), 401, "unknown_write_key"
            )
    larger = gzip.compress(b" " * 5_000_000)
    for _ in range(10):
        assert_refused(post(gateway, "/v1/batch", larger, content_encoding="gzip"), 413, "body_too_large")
    # Taking these apart costs 0.3 s each.
    assert gateway.process.process.cpu_times().user - before < 2
    assert (gateway.stored, gateway.quarantined) == (0, 0)


def test_a_key_in_the_body_of_broken_json_counts(gateway: Gateway) -> None:
    good, other = event(writeKey="of the event"), event()
    body = b'{"batch":[%s,{"n":NaN},%s],"writeKey":"%s"}'
    events = json.dumps(good).encode(), json.dumps(other).encode()
    answer = post(gateway, "/v1/batch", body % (*events, gateway.key.encode()))
    assert (answer.json()["accepted"], len(answer.json()["rejected"])) == (2, 1)
    # A valid key inside of an event is not the request's.
    inside = json.dumps(event(writeKey=gateway.key)).encode()
    assert_refused(post(gateway, "/v1/batch", body % (inside, events[1], b"nobody")), 401, "unknown_write_key")
    assert (gateway.stored, gateway.quarantined) == (2, 1)


def test_a_key_in_the_query(gateway: Gateway) -> None:
    body = {"batch": [event()]}
    for path in ("/v1/batch", "/beacon/v1/batch", "/beacon/v1/batch/"):
        answer = post(gateway, f"{path}?writeKey={gateway.key}", body, content_type="text/plain;charset=UTF-8")
        assert (answer.status_code, answer.json()["accepted"]) == (200, 1)
        assert answer.headers["access-control-allow-origin"] == "*"
        assert_refused(post(gateway, f"{path}?writeKey=nobody", body), 401, "unknown_write_key")
        assert_refused(gateway.post(f"{path}?writeKey=another", body), 401, "different_write_keys")
        assert_refused(
            post(gateway, f"{path}?writeKey={gateway.key}", body | {"writeKey": "another"}), 401, "different_write_keys"
        )
    assert gateway.stored == 3


def test_too_many_bytes(start: Start) -> None:
    gateway = start(tenant_bytes_per_s_max="100000")
    other = add_tenant(gateway.conn, "other").write_key
    large = {"batch": [event(properties={"text": "x" * 200_000})]}
    packed = gzip.compress(json.dumps(large).encode())
    assert gateway.post("/v1/batch", packed, content_encoding="gzip").status_code == 200
    assert_refused(gateway.batch(event()), 429, "over_quota")
    assert_refused(post(gateway, "/v1/batch", {"batch": [], "writeKey": gateway.key}), 429, "over_quota")
    assert gateway.post("/v1/batch", {"batch": [event()]}, key=other).status_code == 200
    wait_for("the quota to come back", lambda: gateway.batch(event()).status_code == 200)


def test_a_body_that_is_no_json_costs_its_tenant_more(start: Start) -> None:
    gateway = start(tenant_bytes_per_s_max="100000")
    assert (
        gateway.post("/v1/batch", b'{"batch":[%s]}' % json.dumps(event(text="x" * 10_000)).encode()).status_code == 200
    )
    assert gateway.post("/v1/batch", b'{"batch":[{"n":NaN,"text":"%s"}]}' % (b"x" * 10_000)).status_code == 200
    assert_refused(gateway.batch(event()), 429, "over_quota")


def test_an_idempotency_key_is_bounded(gateway: Gateway) -> None:
    assert_refused(
        gateway.post("/v1/batch", {"batch": []}, idempotency_key="x" * 1_025), 400, "invalid_idempotency_key"
    )
    assert gateway.post(
        "/v1/batch", {"batch": [{**event(), "messageId": None}]}, idempotency_key="x" * 1_024
    ).is_success


def test_arrays_and_lines(gateway: Gateway) -> None:
    """As collectors of logs send them."""
    events = [event(), {"type": "track"}, event()]
    lines = b"\n".join(json.dumps(one).encode() for one in events) + b"\n"
    for answer in (
        gateway.post("/v1/batch", json.dumps(events).encode()),
        gateway.post("/v1/batch", lines, content_type="application/x-ndjson"),
        gateway.post("/v1/batch", b"\n" * 1_000_000 + lines, content_type="application/x-ndjson"),
    ):
        assert (answer.status_code, answer.json()["accepted"]) == (200, 2)
        assert [(one["index"], one["code"]) for one in answer.json()["rejected"]] == [(1, "missing_field")]
    assert (gateway.stored, gateway.quarantined) == (6, 3)
    many = gateway.post("/v1/batch", b"1\n" * 1_000_000, content_type="application/x-ndjson")
    assert_refused(many, 413, "too_many_events")
    assert_refused(gateway.post("/v1/track", b"[]"), 400, "invalid_envelope")
    assert_refused(gateway.post("/v1/batch", lines), 400, "invalid_json")


def test_settings_for_browsers(gateway: Gateway) -> None:
    segment = gateway.client.get(f"/v1/projects/{gateway.key}/settings")
    assert segment.json()["integrations"] == {"Segment.io": {"apiKey": gateway.key}}
    rudderstack = [
        gateway.client.get(f"/sourceConfig/?writeKey={gateway.key}&p=npm"),
        gateway.client.get("/sourceConfig", auth=(gateway.key, "")),
    ]
    assert [answer.json()["source"]["destinations"] for answer in rudderstack] == [[], []]
    for answer in [segment, *rudderstack]:
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "max-age" in answer.headers["cache-control"]
    assert_refused(gateway.client.get("/v1/projects/nobody/settings"), 401, "unknown_write_key")
    assert_refused(gateway.client.get("/sourceConfig"), 401, "missing_write_key")
    preflight = gateway.client.options("/sourceConfig/", headers={"Origin": "https://shop.example"})
    assert preflight.status_code == 204
    assert "GET" in preflight.headers["access-control-allow-methods"]
