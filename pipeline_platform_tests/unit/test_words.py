"""One word for one concept: the glossary decides, and identifiers in code and SQL follow."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline_platform.watch.alerts.catalogue import Kind

_ROOT = Path(__file__).parents[2]
_CODE = [
    *(_ROOT / "pipeline_platform").rglob("*.py"),
    *(_ROOT / "sql/queries").glob("*.sql"),
    *(_ROOT / "sql/functions").rglob("*.sql"),
    _ROOT / "sql/schema.sql",
]
# Words that were replaced, each with its successor in the glossary.
_REPLACED = {
    r"dead_letters?\.stage|--stage": "failed_in",
    r"work\.attempts|\bw\.attempts|chunk\.attempts": "deaths (of work), times_taken (of chunks)",
    r"\bold_pipeline|\bOldPipeline|\bold_totals": "legacy",
    r"\bis_history|\bimported history": "is_imported, imported events",
    r"\b[Ll]edger\b": "records, fates, or the name of the table",
    r"\bSettledIds|\bunsettled_ids|_SQL\[\"settle\"\]": "final (ids), record, discard",
    r"\bclass Mark\b|alert_marks": "mark (of a roll-up), low-water mark, rating, tag",
}
# A statement is composed with psycopg.sql (db.composed, db.in_schema), not by replacing text.
_REPLACING = re.compile(r"(?:_SQL|_DIFF|_WRITE|queries\([^)]*\))\[[^\]]*\]\s*\.replace\(|\bstatement\.replace\(")
_QUERY = re.compile(r"^-- name: \w+\n((?:(?!-- name: ).*\n?)*)", re.MULTILINE)
_KIND = re.compile(r"(?:VALUES \(|SELECT |THEN |ELSE |kind = )'([a-z]+(?:_[a-z]+)+)'(?=,| ELSE| END| AND|\))")


def _lines() -> Iterator[tuple[str, str]]:
    for path in _CODE:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            yield f"{path.relative_to(_ROOT)}:{number}", line


@pytest.mark.parametrize("word", _REPLACED)
def test_a_replaced_word_does_not_come_back(word: str) -> None:
    found = [place for place, line in _lines() if re.search(word, line)]
    assert not found, f"use {_REPLACED[word]}"


def test_a_part_that_failed_is_no_stage() -> None:
    table = re.search(
        r"CREATE TABLE queue\.dead_letters \((.*?)\n\);", (_ROOT / "sql/schema.sql").read_text(), re.DOTALL
    )
    assert table and "failed_in text" in table[1] and " stage " not in table[1]


def test_no_statement_is_made_by_replacing_text() -> None:
    assert not [place for place, line in _lines() if _REPLACING.search(line)]


def test_each_kind_of_alert_in_sql_is_in_the_catalogue() -> None:
    found: set[str] = set()
    for path in (_ROOT / "sql/queries").glob("*.sql"):
        for body in _QUERY.findall(path.read_text()):
            if body.startswith("-- Condition:") or "INTO control.alerts" in body or "UPDATE control.alerts" in body:
                found |= set(_KIND.findall(body))
    assert not found - set(Kind)
    opened_in_sql = {
        "account_unbalanced", "archive_failed", "channel_down", "chore_late", "circuit_open", "cutover_anomaly",
        "dead_letter_exhausted", "delivery_rate_low", "drift_found", "hours_overdue", "lag_high", "queue_stopped",
        "rejected_high", "replay_holds_hours", "replay_paused", "sensor_failed", "sensor_silent", "transaction_old",
        "workers_crashing",
    }  # fmt: skip
    assert found >= opened_in_sql, "the pattern no longer finds them"
