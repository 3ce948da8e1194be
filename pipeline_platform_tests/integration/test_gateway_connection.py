"""A connection that the server ended: noticed whenever it ended, and made again."""

import asyncio
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
import uvloop

from pipeline_platform.gateway.db_connection import StatementConnection
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.waiting import wait_for

Conn = psycopg.Connection[Any]
_TIMEOUT_S = 5.0


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
@pytest.mark.parametrize("statements_before", [0, 1])
def test_a_connection_that_ended_unseen_fails_the_statement_and_is_made_again(
    settings: Settings, conn: Conn, statements_before: int, run: Callable[..., None]
) -> None:
    async def use() -> None:
        connection = StatementConnection(settings.database_url, "test", _TIMEOUT_S)
        pid = (await connection.connect()).info.backend_pid
        for _ in range(statements_before):
            await connection.run("SELECT 1")
        # Nothing else runs in the loop meanwhile, so nobody was told when the next statement is sent.
        _end(conn, pid)
        with pytest.raises(psycopg.OperationalError):
            # Not in a task of its own, for which the loop would turn once before.
            async with asyncio.timeout(3 * _TIMEOUT_S):
                await connection.run("SELECT 1")
        await connection.run("SELECT 1")
        assert connection.is_connected
        await connection.close()

    run(use())


def test_a_connection_that_ended_leaves_its_descriptor_to_whoever_has_it_next(settings: Settings, conn: Conn) -> None:
    async def use() -> None:
        lost = asyncio.Event()
        first = StatementConnection(settings.database_url, "test", _TIMEOUT_S, lost=lost.set)
        others = [StatementConnection(settings.database_url, "test", _TIMEOUT_S) for _ in range(3)]
        _end(conn, (await first.connect()).info.backend_pid)
        await lost.wait()
        for other in others:
            await other.connect()
        await first.connect()
        for connection in (first, *others):
            await asyncio.wait_for(connection.run("SELECT 1"), 3 * _TIMEOUT_S)
            await connection.close()

    asyncio.run(use())


def _end(conn: Conn, pid: int) -> None:
    conn.execute("SELECT pg_terminate_backend(%s)", (pid,))
    wait_for(
        "the backend to end",
        lambda: conn.execute("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", (pid,)).fetchone() == (0,),
    )
