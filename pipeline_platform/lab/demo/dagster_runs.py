"""Launches a Dagster job for several hours, as a person does in its UI, and waits until it has ended."""

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import httpx

from pipeline_platform.errors import ServiceError
from pipeline_platform.local.supervisor.dagster import LOCATION

_TICK_S = 0.25
_RUN_LIMIT_S = 180.0
_LAUNCH = """mutation($job: String!, $config: RunConfigData!, $tags: [ExecutionTag!]) {
  launchRun(executionParams: {
    selector: {jobName: $job, repositoryName: "__repository__", repositoryLocationName: "LOCATION"},
    runConfigData: $config, executionMetadata: {tags: $tags}
  }) {
    __typename
    ... on LaunchRunSuccess {run {runId}}
    ... on PythonError {message}
    ... on RunConfigValidationInvalid {errors {message}}
    ... on InvalidSubsetError {message}
  }
}""".replace("LOCATION", LOCATION)
_STATUS = "query($run: ID!) {runOrError(runId: $run) {... on Run {status}}}"
_RANGE_START, _RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
_ENDED = {"SUCCESS", "FAILURE", "CANCELED"}


def run_job(url: str, job: str, config: dict[str, Any], hours: Sequence[datetime] = ()) -> str:
    """Launch `job`, for the partitions of these hours in one run; returns the run's id when it has succeeded.

    ServiceError if it fails.
    """
    ends = {_RANGE_START: hours[0], _RANGE_END: hours[-1]} if hours else {}
    tags = [{"key": name, "value": partition_of(hour)} for name, hour in ends.items()]
    launched = _ask(url, _LAUNCH, job=job, config=config, tags=tags)["launchRun"]
    if launched["__typename"] != "LaunchRunSuccess":
        raise ServiceError(f"Dagster does not launch {job}: {launched}")
    run = launched["run"]["runId"]
    deadline = time.monotonic() + _RUN_LIMIT_S
    while (status := _ask(url, _STATUS, run=run)["runOrError"]["status"]) not in _ENDED:
        if time.monotonic() > deadline:
            raise ServiceError(f"the run {run} of {job} has not ended after {_RUN_LIMIT_S:.0f} s: {url}/runs/{run}")
        time.sleep(_TICK_S)
    if status != "SUCCESS":
        raise ServiceError(f"the run of {job} ended with {status}: see {url}/runs/{run}")
    return run


def partition_of(hour: datetime) -> str:
    """The name of the hour in Dagster."""
    return hour.strftime("%Y-%m-%d-%H:%M")


def _ask(url: str, query: str, **variables: Any) -> dict[str, Any]:
    question = {"query": query, "variables": variables}
    answer = httpx.post(f"{url}/graphql", json=question, timeout=60, trust_env=False).json()
    if "errors" in answer:
        raise ServiceError(f"Dagster refuses the demo's query: {answer['errors'][0]['message']}")
    return answer["data"]
