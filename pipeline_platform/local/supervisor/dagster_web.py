"""Process entry: `python -m pipeline_platform.local.supervisor.dagster_web` serves Dagster's UI behind a guard.

`dagster-webserver` obeys whoever reaches it, and through a browser on this machine that is every web page: a GET with
a mutation in its address launches a run. This is the same app with `LocalGuard` before it, and always on loopback.
"""

import argparse
import signal
from types import FrameType

import uvicorn
from dagster import DagsterInstance
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._utils.log import configure_loggers
from dagster_webserver.app import create_app_from_workspace_process_context  # pyright: ignore[reportUnknownVariableType]
from dagster_webserver.version import __version__

from pipeline_platform.local.web_guard import LocalGuard


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline_platform.local.supervisor.dagster_web", description=__doc__
    )
    parser.add_argument("--port", type=int, required=True, help="where it listens, on 127.0.0.1")
    parser.add_argument("--workspace", required=True, help="the workspace.yaml that names the code server")
    parser.add_argument("--log-format", choices=("colored", "json"), default="colored", help="as Dagster's programs")
    arguments = parser.parse_args()
    configure_loggers(formatter=arguments.log_format)
    # For the time before uvicorn handles SIGTERM, so that the instance and its connections are closed properly.
    signal.signal(signal.SIGTERM, _stop)
    with DagsterInstance.get() as instance:
        target = WorkspaceFileTarget(paths=[arguments.workspace])
        with WorkspaceProcessContext(instance, version=__version__, workspace_load_target=target) as context:
            app = LocalGuard(create_app_from_workspace_process_context(context), "Dagster")
            uvicorn.run(app, host="127.0.0.1", port=arguments.port, log_level="warning", server_header=False)


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


if __name__ == "__main__":
    main()
