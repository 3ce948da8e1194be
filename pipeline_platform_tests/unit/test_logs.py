"""Logging: what a line looks like in both formats, and that no secret is in it, however it came there."""

import json
import subprocess
import sys
from typing import Any

import pytest

from pipeline_platform.cli.failures import without_secrets
from pipeline_platform.settings import Settings
from pipeline_platform.telemetry.redaction import SECRET_SETTINGS, Redactor, names_credential
from pipeline_platform.tenants.write_keys import new_write_key

_PASSWORD = "s3cr3t-pass"
_SETTINGS = Settings(
    database_url=f"postgresql://me:{_PASSWORD}@db.example/pipeline", redis_url="redis://:r3dis-pass@cache/0"
)
_KEY = new_write_key()

_LINES = {
    "url": f"cannot connect to postgresql://me:{_PASSWORD}@db.example/pipeline",
    "another_url": "cannot connect to rediss://:0ther-pass@cache:6379/0",
    "at_in_password": "amqp://u:p@ss-w0rd@host/x is down",
    "bare_password": f"authentication of me failed with {_PASSWORD}",
    "conninfo": "host=db user=me password=c0nn-pass dbname=x",
    "quoted_conninfo": "host=db password='c0nn pass' dbname=x",
    "repr": "{'password': 'r3pr-pass', 'user': 'me'}",
    "header": "sent Authorization: Basic dXNlcjpwYXNzd29yZA==",
    "headers": str({"Authorization": "Bearer abc.def-ghi", "Accept": "*/*"}),
    "raw_headers": str([(b"authorization", b"Basic dXNlcjpwYXNzd29yZA==")]),
    "write_key": f"nobody has the key {_KEY}",
    "write_key_in_json": json.dumps({"writeKey": "another-pipelines-key", "batch": []}),
    "write_key_in_url": f"POST /v1/track?writeKey={_KEY} failed",
}
_SECRETS = (
    _PASSWORD, "r3dis-pass", "0ther-pass", "p@ss-w0rd", "ss-w0rd", "c0nn", "r3pr-pass",
    "dXNlcjpwYXNzd29yZA", "abc.def-ghi", _KEY, "another-pipelines-key",
)  # fmt: skip


@pytest.mark.parametrize("name", _LINES)
def test_secrets_are_removed_by_their_form(name: str) -> None:
    cleaned = Redactor(_SETTINGS).text(_LINES[name])
    assert not [secret for secret in _SECRETS if secret in cleaned], cleaned
    assert "[removed]" in cleaned


def test_a_password_that_was_not_escaped_is_removed_part_by_part() -> None:
    settings = Settings.model_construct(database_url="postgresql://me:first-part@second-part/third-part@db/x")
    shown = Redactor(settings).text("could not translate host name second-part/third-part; first-part")
    assert "-part" not in shown


def test_a_line_break_of_a_client_makes_no_record(capfd: pytest.CaptureFixture[str]) -> None:
    code = (
        "import logging, pipeline_platform.telemetry.logs as logs; from pipeline_platform.settings import Settings;"
        "logs.set_up_logging(Settings(log_format='text'));"
        "logging.warning('of %s', 'x\\n2026-01-01 00:00:00,000 ERROR forged: \\x1b[31m\\x9b\\u202e')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    said = capfd.readouterr().err
    assert "\n    2026-01-01 00:00:00,000 ERROR forged: \\x1b[31m\\x9b\\u202e" in said
    assert "\x1b" not in said


def test_what_is_no_secret_stays() -> None:
    text = (
        "a commit of 12 requests failed (batch 17, fingerprint 0a1b2c3d4e5f60718293a4b5c6d7e8f9): see "
        "http://127.0.0.1:8080/readyz and postgresql://127.0.0.1:5432/x, hour 2026-01-02T03:00:00+00:00 stays; "
        "event 89451a46-98e4-55a3-baba-163cc8211618"
    )
    assert Redactor(_SETTINGS).text(text) == text


class _WithAlerts(Settings):
    alert_urls: str = "slack://T0k3nA/T0k3nB, mailto://me:mail-pass@example.org"
    console_token: str = "c0ns0le-token"


def test_addresses_of_alerts_and_tokens_are_removed_whole() -> None:
    cleaned = Redactor(_WithAlerts()).text("could not tell slack://T0k3nA/T0k3nB of it; asked with c0ns0le-token")
    assert cleaned == "could not tell [removed] of it; asked with [removed]"


def test_the_list_of_secret_settings_has_every_setting_that_is_named_like_one() -> None:
    assert set(Settings.model_fields) >= SECRET_SETTINGS
    assert {name for name in Settings.model_fields if names_credential(name)} <= SECRET_SETTINGS


def test_values_under_the_name_of_a_secret_are_removed_and_counts_stay() -> None:
    fields = {"headers": {"Api-Key": "k", "Cookie": "c"}, "discarded": 3}
    cleaned = Redactor(_SETTINGS).value(fields)
    assert cleaned == {"headers": {"Api-Key": "[removed]", "Cookie": "[removed]"}, "discarded": 3}


def test_a_wrong_setting_does_not_let_the_command_line_show_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_WORKERS", "none")
    monkeypatch.setenv("PIPELINE_CONSOLE_TOKEN", "c0ns0le-token")
    monkeypatch.setenv("PIPELINE_ALERT_URLS", "slack://T0k3nA/T0k3nB")
    assert without_secrets("c0ns0le-token at slack://T0k3nA/T0k3nB") == "[removed] at [removed]"


_PROGRAM = """
import logging, sys, threading
from pipeline_platform.telemetry.logs import set_up_logging
from pipeline_platform.settings import Settings
set_up_logging(Settings.read())
log = logging.getLogger("pipeline_platform.test")
log.warning("key %s of %d", sys.argv[1], 7, extra={"batch_ids": [1, 2], "headers": {"Authorization": "x"}})
try:
    raise ValueError("postgresql://me:pl4nted@db/x")
except ValueError:
    log.exception("it failed")
thread = threading.Thread(target=lambda: [][1])
thread.start(); thread.join()
raise RuntimeError("write_key=" + sys.argv[1])
"""


def _logged(log_format: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-c", _PROGRAM, _KEY], env={"PIPELINE_LOG_FORMAT": log_format}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert not ended.stdout
    return ended.stderr


def test_json_is_an_object_a_line_even_for_what_nobody_caught() -> None:
    lines: list[dict[str, Any]] = [json.loads(line) for line in _logged("json").splitlines()]
    assert [line["event"] for line in lines] == ["key [removed] of 7", "it failed", *["ended by an error"] * 2]
    assert [line["level"] for line in lines] == ["warning", "error", "critical", "critical"]
    assert lines[0]["batch_ids"] == [1, 2]
    assert lines[0]["headers"] == {"Authorization": "[removed]"}
    assert lines[0]["logger"] == "pipeline_platform.test"
    assert all(isinstance(line["process"], int) and line["timestamp"].endswith("Z") for line in lines)
    assert "ValueError: postgresql://me:[removed]@db/x" in lines[1]["exception"]
    assert "IndexError" in lines[2]["exception"]
    assert "RuntimeError: write_key=[removed]" in lines[3]["exception"]


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_format_shows_a_secret(log_format: str) -> None:
    shown = _logged(log_format)
    assert _KEY not in shown
    assert "pl4nted" not in shown


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_what_an_error_of_bad_data_quotes_is_not_logged(log_format: str) -> None:
    code = f"""
import logging
import psycopg
from pipeline_platform.telemetry.logs import set_up_logging
from pipeline_platform.settings import Settings

set_up_logging(Settings(log_format={log_format!r}))
bad = psycopg.errors.InvalidTextRepresentation(
    'invalid input syntax for type json: "ann@example.org"\\nDETAIL:  Token ann@example.org is invalid.'
)
logging.warning("a commit failed: %s", bad)
try:
    try:
        raise bad
    except psycopg.Error as error:
        raise ValueError("no row") from error
except ValueError:
    logging.exception("an event cannot be stored")
logging.error("several went wrong", exc_info=ExceptionGroup("", [bad]))
raise bad
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert "ann@example" not in done.stderr
    assert done.stderr.count("InvalidTextRepresentation") >= 2 and done.stderr.count("22P02") == 4
    assert "invalid input syntax for type json: [removed]" in done.stderr and "ValueError" in done.stderr
