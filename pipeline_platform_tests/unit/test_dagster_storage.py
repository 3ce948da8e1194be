"""Dagster's storage is reached as the pipeline's database is, whatever its URL says."""

from typing import Any

import pytest
from sqlalchemy import create_engine

from pipeline_platform.local.supervisor.dagster import storage_environment


def reached(url: str) -> dict[str, Any]:
    """What its driver is told."""
    engine = create_engine(storage_environment(url)["DAGSTER_PG_URL"])
    _, told = engine.dialect.create_connect_args(engine.url)
    return told


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "postgresql://u%40x:p%2Fs%3As@db.example:6432/pipeline",
            {"user": "u@x", "password": "p/s:s", "host": "db.example", "port": "6432"},
        ),
        ("postgresql://u@/pipeline?host=%2Fhome%2Fa%20b&port=5433", {"user": "u", "host": "/home/a b", "port": "5433"}),
        (
            "postgresql://u@one:1,two:2/pipeline?target_session_attrs=read-write",
            {"host": "one,two", "port": "1,2", "target_session_attrs": "read-write"},
        ),
        (
            "host=db.example user=u sslmode=verify-full sslrootcert=/certs/ca.pem passfile=/secret",
            {"host": "db.example", "sslmode": "verify-full", "sslrootcert": "/certs/ca.pem", "passfile": "/secret"},
        ),
        ("postgresql://u@db.example/pipeline", {"host": "db.example"}),
        ("service=production", {"service": "production"}),
    ],
)
def test_every_part_of_the_url_reaches_the_driver(url: str, expected: dict[str, str]) -> None:
    told = reached(url)
    assert {name: str(told[name]) for name in expected} == expected
    assert told["dbname"] == "dagster"
    assert told["client_encoding"] == "UTF8"
    assert "-c TimeZone=UTC" in told["options"]
    assert r"-c default_transaction_isolation=read\ committed" in told["options"]


def test_options_of_ones_own_are_kept_before_ours() -> None:
    options = reached("postgresql://u@db.example/pipeline?options=-c%20work_mem%3D64MB")["options"]
    assert options.startswith("-c work_mem=64MB -c ")
