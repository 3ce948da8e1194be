"""Load on the real gateway: concurrent senders, singly and in batches, until told to stop.

Whatever is refused or unknown is sent again, unchanged, until it is acknowledged: what the SDKs do, only sooner.
"""

import random
import threading
import time
from types import TracebackType
from typing import Self

from pipeline_platform_tests.support.client import Client, Event
from pipeline_platform_tests.support.ledger import Ledger
from pipeline_platform_tests.support.tenants import Tenant
from pipeline_platform_tests.support.waiting import wait_for

# SDKs wait as long as they are told; a test that did would be about nothing but waiting.
_RETRY_S_MAX = 0.2
# About 400 events a second: the machine is shared, and the faults are the subject.
_PAUSE_S_MAX = 0.1


class Load:
    """Senders that run while the context is open; leaving it (or `finish`) waits until all is acknowledged."""

    def __init__(self, port: int, ledger: Ledger, tenants: list[Tenant], senders: int = 6, batch_max: int = 12) -> None:
        self._port = port
        self._ledger = ledger
        self._tenants = tenants
        self._batch_max = batch_max
        self._enough = threading.Event()
        self._give_up = threading.Event()
        self._error: BaseException | None = None
        self._answered: list[tuple[float, float]] = []
        rng = random.Random(ledger.seed)
        self._threads = [
            threading.Thread(target=self._guarded, args=(random.Random(rng.random()),), daemon=True)
            for _ in range(senders)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._give_up.set()
        self.finish()

    def finish(self) -> None:
        """No new events; wait until every event sent is acknowledged."""
        self._enough.set()
        try:
            wait_for("the senders to end", lambda: not any(thread.is_alive() for thread in self._threads), 60)
        finally:
            self._give_up.set()
        if self._error is not None:
            raise self._error

    def await_acknowledged(self, more: int, deadline_s: float = 30.0) -> None:
        """Wait until so many more events are acknowledged than now."""
        target = self._ledger.acknowledged + more
        wait_for(f"{more} acknowledgements", lambda: self._ledger.acknowledged >= target or self._error, deadline_s)
        if self._error is not None:
            raise self._error

    def recovered_after(self, fault_at: float, deadline_s: float = 30.0) -> float:
        """Seconds from `fault_at` (time.monotonic) to the first acknowledgement of a request made after it."""

        def first() -> float | None:
            return min((at for asked_at, at in list(self._answered) if asked_at > fault_at), default=None)

        return wait_for("the first acknowledgement", first, deadline_s) - fault_at

    def _guarded(self, rng: random.Random) -> None:
        clients = {tenant: Client(self._port, tenant.write_key) for tenant in self._tenants}
        try:
            while not self._enough.is_set():
                tenant = rng.choice(self._tenants)
                size = 1 if rng.random() < 0.5 else rng.randrange(2, self._batch_max + 1)
                events = [self._ledger.event(tenant, rng) for _ in range(size)]
                self._send(clients[tenant], tenant, events)
                self._give_up.wait(rng.random() * _PAUSE_S_MAX)
        except BaseException as error:  # noqa: BLE001 -- raised again by whoever waits for the load
            self._error = error
        finally:
            for client in clients.values():
                client.close()

    def _send(self, client: Client, tenant: Tenant, events: list[Event]) -> None:
        while not self._give_up.is_set():
            asked_at = time.monotonic()
            answer = client.send(events)
            self._ledger.note(tenant, events, answer.outcome)
            if answer.outcome == "acknowledged":
                assert answer.accepted == len(events), f"some were rejected: {answer.rejected}"
                self._answered.append((asked_at, time.monotonic()))
                return
            if answer.outcome == "refused":
                assert 1 <= answer.retry_after_s <= 300
            self._give_up.wait(_RETRY_S_MAX)
