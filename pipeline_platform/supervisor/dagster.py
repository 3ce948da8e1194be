"""Dagster as three children: one code server, the daemon, the web server.

`dagster dev` starts the same three (and a proxy) one after the other and took 25 to 30 s and 680 MB here; side by side
they serve after 10 to 11 s with 440 MB, and each is started again by itself. Its tables live in the database
`dagster`, its other files in ``home/dagster``. The data plane never waits for any of this.
"""

import shutil
import signal
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psycopg
from psycopg.conninfo import conninfo_to_dict

from pipeline_platform.errors import ConfigError
from pipeline_platform.services import ensure_database
from pipeline_platform.settings import Settings
from pipeline_platform.supervisor.children import Child
from pipeline_platform.supervisor.programs import answers, environment, program

DATABASE = "dagster"
MODULE = "pipeline_platform.definitions"
LOCATION = "pipeline_platform"  # as in workspace.yaml: schedules and sensors are remembered under it

_PLACES = (Path(__file__).parent.parent.parent, Path(__file__).parent.parent / "_dagster")
_NICENESS = 5  # on a busy machine events go before their control plane
_SOCKET_PATH_MAX = 100  # the system's limit is 107, 103 on macOS
_LOADED = "{workspaceOrError{...on Workspace{locationEntries{loadStatus locationOrLoadError{__typename}}}}}"
_RELOAD = "mutation{reloadWorkspace{__typename}}"
_HEALTHY = "{instance{daemonHealth{allDaemonStatuses{required healthy}}}}"


def storage_environment(database_url: str) -> dict[str, str]:
    """The variables from which dagster.yaml reads its database: `dagster`, beside the pipeline's own."""
    parts = conninfo_to_dict(database_url)
    return {
        "DAGSTER_PG_HOST": str(parts.get("host", "127.0.0.1")),
        "DAGSTER_PG_PORT": str(parts.get("port", 5432)),
        "DAGSTER_PG_USER": str(parts.get("user", "")),
        "DAGSTER_PG_PASSWORD": str(parts.get("password", "")),
        "DAGSTER_PG_DB": DATABASE,
    }


def ensure_storage(database_url: str) -> None:
    """Make Dagster's database where there is none."""
    try:
        ensure_database(database_url, DATABASE)
    except psycopg.errors.InsufficientPrivilege as error:
        raise ConfigError(
            f"no database {DATABASE!r} on your server, and we may not make it: CREATE DATABASE {DATABASE}, "
            "or up --no-dagster"
        ) from error


def dagster(settings: Settings) -> list[Child]:
    """The three children; the web server is ready when it shows the loaded definitions."""
    home = settings.home
    env = _environment(settings)
    socket = _socket_path(home / "dagster")
    workspace = home / "dagster" / "workspace.yaml"
    workspace.write_text(f"load_from:\n- grpc_server:\n    socket: {socket}\n    location_name: {LOCATION}\n")
    url = f"http://127.0.0.1:{settings.dagster_port}"
    form = ("--log-format", "json") if settings.log_format == "json" else ()

    def child(name: str, ready: Callable[[], bool], *arguments: str) -> Child:
        start = partial(program, home, name, (*arguments, *form), env, niceness=_NICENESS)
        return Child(name, home / "logs" / f"{name}.log", start, ready)

    code = ("dagster", "api", "grpc", "--socket", str(socket), "--module-name", MODULE, "--location-name", LOCATION)
    daemon = ("dagster._daemon", "run", "--workspace", str(workspace))
    web = ("dagster_webserver", "--port", str(settings.dagster_port), "--workspace", str(workspace))
    return [
        child("dagster-code", socket.exists, *code, "--log-level", "warning"),
        child("dagster-daemon", partial(_healthy, url), *daemon),
        child("dagster-web", partial(_shows_definitions, url), *web),
    ]


def dagster_dev(settings: Settings) -> list[Child]:
    """`dagster dev` as one child that speaks to our terminal, for work on the definitions."""
    # It advises a newer command, which needs a project of another layout.
    env = _environment(settings) | {"PYTHONWARNINGS": "ignore:Function `dev_command` is superseded"}
    arguments = ("dagster", "dev", "--workspace", str(_shipped("workspace.yaml")), "--port", str(settings.dagster_port))
    # SIGTERM does not end it.
    start = partial(program, settings.home, None, arguments, env, stop_signal=signal.SIGINT)
    ready = partial(_shows_definitions, f"http://127.0.0.1:{settings.dagster_port}")
    return [Child("dagster dev", settings.home / "logs" / "dagster", start, ready)]


def _environment(settings: Settings) -> dict[str, str]:
    """What every process of Dagster needs; its home is made, with the platform's dagster.yaml in it."""
    directory = settings.home / "dagster"
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(_shipped("dagster.yaml"), directory / "dagster.yaml")
    return environment(settings) | storage_environment(settings.database_url) | {"DAGSTER_HOME": str(directory)}


def _shipped(name: str) -> Path:
    """A file at the root of the checkout, or its copy inside the installed wheel."""
    for place in _PLACES:
        if (place / name).exists():
            return place / name
    raise ConfigError(f"no {name} in {_PLACES[0]}: reinstall pipeline-platform, or up --no-dagster")


def _socket_path(directory: Path) -> Path:
    path = directory / "code.sock"
    if len(str(path)) > _SOCKET_PATH_MAX:
        path = Path(tempfile.mkdtemp(prefix="pipeline-")) / "code.sock"
    path.unlink(missing_ok=True)
    return path


def _shows_definitions(url: str) -> bool:
    if not answers(f"{url}/server_info"):
        return False
    entries = _ask(url, _LOADED)["workspaceOrError"].get("locationEntries", [])
    if any(entry["loadStatus"] != "LOADED" for entry in entries):
        return False
    if any(entry["locationOrLoadError"]["__typename"] == "PythonError" for entry in entries):
        # It asked before the code server answered. Definitions that fail end the code server, with their error.
        _ask(url, _RELOAD)
        return False
    return bool(entries)


def _healthy(url: str) -> bool:
    if not answers(f"{url}/server_info"):
        return False
    states = _ask(url, _HEALTHY)["instance"]["daemonHealth"]["allDaemonStatuses"]
    return all(state["healthy"] for state in states if state["required"])


def _ask(url: str, query: str) -> dict[str, Any]:
    """One GraphQL query's data; the web server is slow while its siblings start."""
    return httpx.post(f"{url}/graphql", json={"query": query}, timeout=60).json()["data"]
