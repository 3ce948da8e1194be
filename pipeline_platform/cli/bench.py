"""bench: measures the platform's own processes."""

from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer

from pipeline_platform.cli.output import AsJson, console, print_json
from pipeline_platform.cli.values import INT4_MAX, number
from pipeline_platform.settings import Settings
from pipeline_platform.telemetry.terminal import lines


class Which(StrEnum):
    """The benchmarks."""

    LATENCY = "latency"
    THROUGHPUT = "throughput"
    RECONCILE = "reconcile"
    REPLAY = "replay"
    CONSOLE = "console"
    ALL = "all"


def register(app: typer.Typer) -> None:
    app.command()(bench)


def bench(
    which: Annotated[Which, typer.Argument(help="Which benchmark.")] = Which.ALL,
    seconds: Annotated[float, number(5, 86_400, "How long the load lasts.")] = 60.0,
    rate: Annotated[float | None, number(1, 1_000_000, "Events a second; default: 600 and 16,000.")] = None,
    rows: Annotated[
        int, typer.Option(min=1_000, max=100_000_000, help="Rows a side of reconcile; events of replay.")
    ] = 1_000_000,
    seed: Annotated[int, typer.Option(min=0, max=INT4_MAX, help="Makes the same load again.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Measure latency (single events, 600 a second) and throughput (batches of 100) in a home that is thrown away.

    reconcile measures the comparison of two outputs against the anti-join that only finds missing ids; replay how
    fast a window is diffed and committed, and what live events pay for it; console what the page costs its process
    beside 400 tenants and 1,000 events a second, while nobody, one, 10 and 50 look (exit 1 from 5% of a core on).

    Stop what else runs on the machine: the figures are only as quiet as it is.

    Example: pipeline-platform bench throughput --seconds 60
    """
    from pipeline_platform.lab.bench.runs import LATENCY, THROUGHPUT, BenchResult, run_load
    from pipeline_platform.lab.bench.stack import running_stack

    if which is Which.RECONCILE:
        _reconcile(rows, as_json=as_json)
        return
    if which is Which.REPLAY:
        _replay(rows, seed, as_json=as_json)
        return
    if which is Which.CONSOLE:
        _console(seconds, seed, as_json=as_json)
        return
    wanted = {Which.LATENCY: [LATENCY], Which.THROUGHPUT: [THROUGHPUT], Which.ALL: [LATENCY, THROUGHPUT]}[which]
    results: list[BenchResult] = []
    for load in wanted:
        with running_stack(Settings.read()) as stack:
            results.append(run_load(stack, load, seconds=seconds, seed=seed, rate=rate or load.rate))
    if as_json:
        print_json({"runs": [asdict(result) | {"all_delivered": result.all_delivered} for result in results]})
    else:
        for result in results:
            console.print(lines(result.text()))
    raise typer.Exit(0 if all(result.all_delivered for result in results) else 1)


def _reconcile(rows: int, *, as_json: bool) -> None:
    from pipeline_platform.lab.bench.reconciliation import measure
    from pipeline_platform.lab.bench.stack import running_stack

    with running_stack(Settings.read()) as stack:
        result = measure(stack.settings.database_url, rows)
    if as_json:
        print_json(result.to_json())
    else:
        console.print(lines(result.text()))


def _replay(events: int, seed: int, *, as_json: bool) -> None:
    from pipeline_platform.lab.bench.replay import measure
    from pipeline_platform.lab.bench.stack import running_stack

    with running_stack(Settings.read()) as stack:
        result = measure(stack, events, seed)
    if as_json:
        print_json(result.to_json())
    else:
        console.print(lines(result.text()))


def _console(seconds: float, seed: int, *, as_json: bool) -> None:
    from pipeline_platform.lab.bench.console import measure
    from pipeline_platform.lab.bench.stack import running_stack

    with running_stack(Settings.read()) as stack:
        result = measure(stack, seconds, seed)
    if as_json:
        print_json(result.to_json())
    else:
        console.print(lines(result.text()))
    raise typer.Exit(0 if result.is_cheap else 1)
