"""`send` on a real gateway: all is acknowledged, also when the gateway dies on the way, and once is enough."""

import gzip
import json
import signal
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pipeline_platform.errors import ConfigError
from pipeline_platform.imports.sender import send_file
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.command import Done, run_command
from pipeline_platform_tests.support.gateway import Gateway
from pipeline_platform_tests.support.waiting import wait_for

Conn = psycopg.Connection[Any]
_DATA = Path(__file__).parents[2].parent / "shared/data/page_views.ndjson.gz"


def event(message_id: str, **more: Any) -> dict[str, Any]:
    return {"messageId": message_id, "type": "track", "event": "Clicked", "userId": "u"} | more


def lines(*events: dict[str, Any] | str) -> bytes:
    return "".join((item if isinstance(item, str) else json.dumps(item)) + "\n" for item in events).encode()


class Sender:
    """The command, pointed at the test's gateway."""

    def __init__(self, settings: Settings, gateway: Gateway) -> None:
        self._settings = settings
        self._url = gateway.process.url
        self._file = settings.home / "events.ndjson"

    def send(self, content: bytes, *options: str) -> Done:
        self._file.write_bytes(content)
        return run_command(self._settings, "send", str(self._file), "--gateway", self._url, "--json", *options)


@pytest.fixture
def sender(settings: Settings, gateway: Gateway) -> Sender:
    return Sender(settings, gateway)


def distinct(conn: Conn) -> int:
    row = conn.execute("SELECT count(DISTINCT (tenant_id, event_id)) FROM queue.events").fetchone()
    assert row
    return row[0]


def test_tenants_are_added_and_their_keys_kept(sender: Sender, conn: Conn, settings: Settings) -> None:
    content = lines(*[event(f"m{number}", tenant=f"t{number % 3}") for number in range(250)])
    done = sender.send(gzip.compress(content), "--tenant-field", "tenant")
    assert done.code == 0, done.err
    assert (done.answer["acknowledged"], done.answer["accepted"], done.answer["rejected"]) == (250, 250, 0)
    kept = settings.home / "write-keys.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert set(json.loads(kept.read_text())) == {"t0", "t1", "t2"}
    sender.send(content, "--tenant-field", "tenant", "--batch", "7")
    assert conn.execute(
        "SELECT count(*), count(*) FILTER (WHERE label = 'send') FROM control.write_keys"
    ).fetchone() == (4, 3)
    assert distinct(conn) == 250
    payloads = conn.execute("SELECT payload FROM queue.batches WHERE codec = 'plain'").fetchall()
    assert payloads
    assert not any(b'"tenant"' in payload for (payload,) in payloads)


def test_a_revoked_key_is_replaced(sender: Sender, conn: Conn) -> None:
    sender.send(lines(event("a", tenant="t")), "--tenant-field", "tenant")
    conn.execute("UPDATE control.write_keys SET revoked_at = now() WHERE label = 'send'")
    wait_for(
        "the gateway to notice",
        lambda: (
            sender.send(lines(event("b", tenant="t")), "--tenant-field", "tenant").code == 0
            and conn.execute("SELECT FROM control.write_keys WHERE label = 'send' AND revoked_at IS NULL").rowcount == 1
        ),
    )
    assert distinct(conn) == 2


def test_without_message_ids_a_second_run_repeats_the_identities(sender: Sender, gateway: Gateway, conn: Conn) -> None:
    twin = {name: value for name, value in event("").items() if name != "messageId"}
    for _ in range(2):
        assert sender.send(lines(twin, twin, twin), "--write-key", gateway.key, "--batch", "2").code == 0
    assert gateway.stored == 6
    assert distinct(conn) == 3


def test_what_is_bad_is_named_and_the_rest_is_sent(sender: Sender, gateway: Gateway) -> None:
    content = lines(event("a"), "{broken", event("b", type="wave"), "", event("c"))
    done = sender.send(content, "--write-key", gateway.key)
    assert done.code == 1
    assert (done.answer["accepted"], done.answer["rejected"], done.answer["bad_lines"]) == (2, 1, 1)
    assert "line 2:" in done.err
    assert gateway.stored == 2


_NAMES = ["x" * 3_000, "  ", "a\nb", "a\x1b[31m", "a\x00b", {"name": "a"}, True, None]


def test_a_line_with_a_name_that_no_tenant_can_have_costs_itself_alone(sender: Sender, conn: Conn) -> None:
    bad = [event(f"b{number}", tenant=name) for number, name in enumerate(_NAMES)]
    done = sender.send(lines(event("a", tenant="t"), *bad, event("c", tenant=4711)), "--tenant-field", "tenant")
    assert done.code == 1
    assert (done.answer["accepted"], done.answer["bad_lines"]) == (2, len(_NAMES))
    assert [f"line {number}:" in done.err for number in range(1, len(_NAMES) + 3)] == [
        False,
        *[True for _ in _NAMES],
        False,
    ]
    assert "\x1b" not in done.err
    names = conn.execute("SELECT name FROM control.tenants WHERE name !~ '^tenant ' ORDER BY name").fetchall()
    assert names == [("4711",), ("t",)]


def test_what_no_reader_of_lines_likes_is_read(sender: Sender, gateway: Gateway) -> None:
    bom, first, second = b"\xef\xbb\xbf", lines(event("a")).strip(), lines(event("b")).strip()
    assert sender.send(bom + first + b"\r\n\r\n" + second, "--write-key", gateway.key).answer["accepted"] == 2
    assert sender.send(b"", "--write-key", gateway.key).code == 0
    assert gateway.stored == 2


_LINES = [
    b"[" * 100_000,
    b'{"tenant":' + b"[" * 100_000,
    b'{"\xff":1}',
    b'{"tenant":"\\ud800"}',
    bytes(range(10)) + bytes(range(11, 256)),
    b'{"a":"' + b"x" * (6 << 20) + b'"}',
]


@pytest.mark.parametrize("by_field", [True, False])
def test_a_line_that_nobody_can_read_costs_itself_alone(sender: Sender, gateway: Gateway, by_field: bool) -> None:
    content = b"\n".join([*_LINES, lines(event("a", tenant="t"), event("c", tenant="t"))])
    done = sender.send(content, *(("--tenant-field", "tenant") if by_field else ("--write-key", gateway.key)))
    assert done.code == 1
    assert done.answer["accepted"] == 2
    assert done.answer["bad_lines"] + done.answer["rejected"] == len(_LINES)


@pytest.mark.parametrize("damage", ["cut", "flipped", "followed"])
def test_a_damaged_file_is_sent_up_to_the_damage(sender: Sender, gateway: Gateway, damage: str) -> None:
    packed = gzip.compress(lines(*[event(f"m{number}-{hash(str(number))}") for number in range(5_000)]))
    middle = len(packed) // 2
    content = {
        "cut": packed[:middle],
        "flipped": packed[:middle] + bytes(byte ^ 0xFF for byte in packed[middle : middle + 9]) + packed[middle + 9 :],
        "followed": packed + b"nonsense",
    }[damage]
    done = sender.send(content, "--write-key", gateway.key)
    assert done.code == 1
    assert done.answer["accepted"] > 0
    assert done.answer["accepted"] == gateway.stored
    assert "the file is damaged after line" in done.said


def test_standard_input_may_be_packed_and_a_directory_is_no_file(settings: Settings, gateway: Gateway) -> None:
    words = ("--write-key", gateway.key, "--gateway", gateway.process.url, "--json")
    done = run_command(settings, "send", "-", *words, stdin=gzip.compress(lines(event("a"))))
    assert done.answer["accepted"] == 1
    done = run_command(settings, "send", str(settings.home), *words)
    assert done.code == 2
    assert "Is a directory" in done.said


@pytest.mark.parametrize("address", ["nonsense", "ftp://x", "http://", "http://[", "http://x:99999"])
def test_what_is_no_address_is_said_at_once(settings: Settings, address: str) -> None:
    with pytest.raises(ConfigError, match="no address of a gateway"):
        send_file(
            settings, address, "-", write_key="k", tenant_field=None, rate=None, batch_events=1, progress=lambda _: None
        )


def test_an_unknown_key_is_said_at_once(sender: Sender) -> None:
    done = sender.send(lines(event("a")), "--write-key", "nobody's")
    assert (done.code, done.out) == (1, "")
    assert "does not know this write key" in done.said


def test_a_file_that_is_not_there_is_wrong_usage(settings: Settings, gateway: Gateway) -> None:
    done = run_command(settings, "send", "nowhere.ndjson", "--write-key", "k", "--gateway", gateway.process.url)
    assert done.code == 2
    assert "nowhere.ndjson" in done.said


def test_a_gateway_that_dies_twice_loses_nothing(start: Callable[..., Gateway], settings: Settings, conn: Conn) -> None:
    gateway = start(kill_point="gateway.after_commit:5")
    sender = Sender(settings, gateway)
    content = lines(*[event(f"m{number}") for number in range(1_000)])
    with ThreadPoolExecutor() as threads:
        sending = threads.submit(sender.send, content, "--write-key", gateway.key, "--batch", "10")
        # After enough commits that its start is noticed before its end.
        for kill_point in ("gateway.after_commit:40", ""):
            assert gateway.process.exit_code() == -signal.SIGKILL
            gateway.process.start(kill_point)
        done = sending.result()
    assert done.code == 0, done.err
    assert (done.answer["acknowledged"], done.answer["accepted"]) == (1_000, 1_000)
    assert distinct(conn) == 1_000


@pytest.mark.skipif(not _DATA.exists(), reason=f"the real events are not there: {_DATA}")
def test_ten_thousand_real_events_of_eleven_tenants(sender: Sender, conn: Conn) -> None:
    done = sender.send(_DATA.read_bytes(), "--tenant-field", "tenant")
    assert done.code == 0, done.err
    assert done.answer["acknowledged"] == 10_000
    assert distinct(conn) == 10_000
    assert conn.execute("SELECT count(*) FROM control.tenants WHERE name !~ '^tenant '").fetchone() == (11,)
