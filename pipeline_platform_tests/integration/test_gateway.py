"""The gateway as clients see it: a real process on real PostgreSQL, every answer of the protocol."""

import base64
import gzip
import json
import secrets
import uuid
import zlib
from collections.abc import Callable

import zstandard

from pipeline_platform.tenants.write_keys import hash_write_key
from pipeline_platform_tests.support.gateway import Blocked, Gateway, Start, assert_refused, event, in_parallel
from pipeline_platform_tests.support.tenants import add_tenant
from pipeline_platform_tests.support.waiting import wait_for

# Accepted


def test_what_is_acknowledged_is_durable_and_counted(gateway: Gateway) -> None:
    answer = gateway.batch(event("a"), event("b"), event(None, userId=5), sentAt="2026-01-01T00:00:00Z")
    assert (answer.status_code, answer.json()) == (200, {"success": True, "accepted": 3, "rejected": []})
    assert gateway.stored == 3
    funnel = gateway.conn.execute("SELECT tenant_id, lane, received, accepted, rejected, in_flight FROM account.funnel")
    assert funnel.fetchall() == [(gateway.tenant_id, "live", 3, 3, 0, 3)]


def test_every_route(gateway: Gateway) -> None:
    body = event(groupId="g", previousId="p")
    singles = ["track", "t", "identify", "i", "page", "p", "screen", "s", "group", "g", "alias", "a"]
    for call in [*singles, "batch", "import", "b"]:
        for slash in ("", "/"):
            whole = body if call in singles else {"batch": [body]}
            answer = gateway.post(f"/v1/{call}{slash}", whole, content_type="text/plain")
            assert (answer.status_code, answer.json()["accepted"], answer.history) == (200, 1, []), call
            stored = gateway.conn.execute("SELECT types[1]::text FROM queue.batches ORDER BY batch_id DESC LIMIT 1")
            assert stored.fetchone() == (call[0] if call in singles else "t",)


def test_a_bad_event_is_quarantined_in_the_same_transaction(gateway: Gateway) -> None:
    bad = b'{"type":"track","event":"x","userId":"\\u0000","messageId":"bad"}'
    good = json.dumps(event("good")).encode()
    answer = gateway.post("/v1/batch", b'{"batch":[' + good + b"," + bad + b"," + good + b"]}")
    assert answer.status_code == 200
    assert answer.json()["accepted"] == 2
    [rejected] = answer.json()["rejected"]
    # Its id can be read, its user cannot be stored.
    assert (rejected["index"], rejected["messageId"], rejected["code"]) == (1, "bad", "nul_character")
    kept = gateway.conn.execute("SELECT tenant_id, message_id, code, payload FROM queue.quarantine").fetchall()
    assert kept == [(gateway.tenant_id, "bad", "nul_character", bad)]
    stamps = gateway.conn.execute(
        "SELECT received_at FROM queue.quarantine UNION SELECT received_at FROM queue.batches"
    )
    assert len(stamps.fetchall()) == 1
    assert gateway.count("SELECT received - accepted - rejected FROM account.funnel") == 0


def test_only_bad_events_and_none_at_all(gateway: Gateway) -> None:
    assert gateway.batch({"type": "x"}).json()["accepted"] == 0
    assert gateway.batch().json() == {"success": True, "accepted": 0, "rejected": []}
    assert (gateway.stored, gateway.quarantined) == (0, 1)


def test_encodings(gateway: Gateway) -> None:
    body = json.dumps({"batch": [event()] * 50}).encode()
    packed = {
        "gzip": gzip.compress(body),
        "deflate": zlib.compress(body),
        "identity": body,
        "gzip, identity": gzip.compress(body),
    }
    for encoding, content in packed.items():
        assert gateway.post("/v1/batch", content, content_encoding=encoding).json()["accepted"] == 50, encoding


def test_a_large_body_arrives_byte_for_byte(gateway: Gateway) -> None:
    events = [event(properties={"noise": base64.b64encode(secrets.token_bytes(150_000)).decode()}) for _ in range(20)]
    assert gateway.batch(*events).json()["accepted"] == 20
    row = gateway.conn.execute("SELECT lengths, codec, payload FROM queue.batches").fetchone()
    assert row is not None
    lengths, codec, payload = row
    payload = zstandard.decompress(payload) if codec == "zstd" else payload
    assert [len(json.dumps(one)) for one in events] == lengths
    assert payload == b"".join(json.dumps(one).encode() for one in events)


def test_chunked_with_a_byte_order_mark(gateway: Gateway) -> None:
    pieces = iter([b"\xef\xbb", b"\xbf", b'{"batch":', json.dumps([event()] * 3).encode(), b"}"])
    answer = gateway.client.post("/v1/batch", content=pieces, auth=(gateway.key, ""))
    assert answer.json()["accepted"] == 3


def test_the_same_batch_sixteen_times_in_parallel(gateway: Gateway) -> None:
    events = [event(f"m{number}") for number in range(20)]
    answers = in_parallel([lambda: gateway.batch(*events)] * 16)
    assert {answer.result().json()["accepted"] for answer in answers} == {20}
    assert gateway.stored == 320
    assert gateway.count("SELECT count(DISTINCT event_id) FROM queue.events") == 20


def test_workers_are_woken(gateway: Gateway) -> None:
    gateway.conn.execute("LISTEN queue_work")
    gateway.batch(event())
    assert [note.channel for note in gateway.conn.notifies(timeout=15, stop_after=1)] == ["queue_work"]


# Group commit


def test_requests_that_wait_share_a_commit(gateway: Gateway, block: Callable[[], Blocked]) -> None:
    blocked = block()
    firsts = gateway.occupy()
    answers = in_parallel([lambda: gateway.batch(event())] * 40)
    blocked.release()
    assert {answer.result().status_code for answer in firsts + answers} == {200}
    assert gateway.stored == 42
    assert gateway.count("SELECT count(*) FROM queue.batches") < 42


def test_bad_data_in_a_group_costs_only_itself(gateway: Gateway, block: Callable[[], Blocked]) -> None:
    bad = uuid.uuid4()
    gateway.conn.execute(f"ALTER TABLE queue.batches ADD CHECK (NOT event_ids @> ARRAY['{bad}'::uuid])".encode())
    blocked = block()
    firsts = gateway.occupy()
    others = in_parallel([lambda: gateway.batch(event(), event())] * 5)
    culprit = in_parallel([lambda: gateway.batch(event("a"), {"type": "x"}, event(str(bad)), event("b"))])
    blocked.release()
    assert [answer.result().json()["accepted"] for answer in firsts + others] == [1, 1, 2, 2, 2, 2, 2]
    answer = culprit[0].result().json()
    assert answer["accepted"] == 2
    assert [(one["index"], one["code"]) for one in answer["rejected"]] == [(1, "unknown_type"), (2, "unstorable")]
    assert (gateway.stored, gateway.quarantined) == (14, 2)
    assert gateway.count("SELECT sum(received - accepted - rejected) FROM account.funnel") == 0
    assert gateway.batch(event()).status_code == 200


def test_a_client_that_leaves_takes_nobody_along(gateway: Gateway, block: Callable[[], Blocked]) -> None:
    blocked = block()
    gateway.occupy()
    leaving = [gateway.raw_post("/v1/track", json.dumps(event()).encode()) for _ in range(4)]
    staying = in_parallel([lambda: gateway.batch(event())] * 4)
    for connection in leaving:
        connection.close()
    blocked.release()
    assert {answer.result().status_code for answer in staying} == {200}
    wait_for("all to be stored", lambda: gateway.stored == 10)


# Refused


def test_unreadable(gateway: Gateway) -> None:
    bodies = {
        b"{": "invalid_json",
        b"": "invalid_json",
        b"17": "invalid_envelope",
        b"{}": "missing_batch",
        b'{"batch":[],"batch":[]}': "two_batches",
    }
    for body, code in bodies.items():
        assert_refused(gateway.post("/v1/batch", body), 400, code)
    assert (gateway.stored, gateway.quarantined) == (0, 0)


def test_keys(gateway: Gateway) -> None:
    body = {"batch": [event()]}
    assert_refused(gateway.client.post("/v1/batch", json=body), 401, "missing_write_key")
    assert_refused(gateway.post("/v1/batch", body, key="nobody"), 401, "unknown_write_key")
    assert_refused(gateway.client.post("/v1/batch", json=body | {"writeKey": "nobody"}), 401, "unknown_write_key")
    assert_refused(gateway.batch(event(), writeKey="another"), 401, "different_write_keys")
    assert gateway.stored == 0
    assert gateway.batch(event(), writeKey=gateway.key).status_code == 200
    assert gateway.client.post("/v1/batch", json=body | {"writeKey": gateway.key}).status_code == 200
    no_colon = {"Authorization": "Basic " + base64.b64encode(gateway.key.encode()).decode()}
    assert gateway.client.post("/v1/batch", json=body, headers=no_colon).status_code == 200


def test_a_revoked_key_stops_and_a_new_one_starts(start: Start) -> None:
    gateway = start(key_refresh_s="1")
    assert gateway.batch(event()).status_code == 200
    gateway.conn.execute("UPDATE control.write_keys SET revoked_at = now()")
    wait_for("the key to stop", lambda: gateway.batch(event()).status_code == 401)
    assert gateway.post("/v1/batch", {"batch": []}, key="new").status_code == 401
    gateway.conn.execute(
        "INSERT INTO control.write_keys (tenant_id, key_hash) SELECT tenant_id, %s FROM control.tenants",
        (hash_write_key("new"),),
    )
    wait_for("the new key to work", lambda: gateway.post("/v1/batch", {"batch": []}, key="new").status_code == 200)


def test_the_tenant_comes_from_the_key_alone(gateway: Gateway) -> None:
    other = add_tenant(gateway.conn, "other")
    body = event(tenantId=gateway.tenant_id, tenant="acme", context={"tenant": "acme"})
    assert gateway.post("/v1/track", body, key=other.write_key).status_code == 200
    assert gateway.count("SELECT tenant_id FROM queue.events") == other.tenant_id


def test_too_large(start: Start) -> None:
    gateway = start(body_bytes_max="100000", request_events_max="10")
    assert_refused(gateway.post("/v1/batch", b" " * 100_001), 413, "body_too_large")
    bomb = gzip.compress(b" " * 200_000_000)
    before = gateway.process.process.memory_info().rss
    for _ in range(5):
        assert_refused(gateway.post("/v1/batch", bomb[:90_000], content_encoding="gzip"), 413, "body_too_large")
    assert gateway.process.process.memory_info().rss - before < 20_000_000
    assert_refused(gateway.batch(*[event()] * 11), 413, "too_many_events")
    assert gateway.batch(*[event()] * 10).status_code == 200


def test_unknown_routes_methods_and_encodings(gateway: Gateway) -> None:
    assert_refused(gateway.post("/v1/nothing", {}), 404, "unknown_call")
    assert_refused(gateway.client.get("/v2/batch"), 404, "not_found")
    assert_refused(gateway.client.get("/v1/batch"), 405, "method_not_allowed")
    assert_refused(gateway.post("/v1/batch", b"{}", content_encoding="br"), 400, "unsupported_encoding")


def test_browsers(gateway: Gateway) -> None:
    asked = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
    for path in ("/v1/t", "/v1/batch/"):
        answer = gateway.client.options(path, headers=asked)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (204, "*")
        assert "POST" in answer.headers["access-control-allow-methods"]
        assert "authorization" in answer.headers["access-control-allow-headers"].lower()
    for answer in (gateway.batch(event()), gateway.post("/v1/batch", b"{")):
        assert answer.headers["access-control-allow-origin"] == "*"
