"""Dagster as three children: one code server, the daemon, the web server.

`dagster dev` starts the same three (and a proxy) one after the other and took 25 to 30 s and 680 MB here; side by side
they serve after 10 to 11 s with 440 MB, and each is started again by itself. Its tables live in the database
`dagster`, its other files in ``home/dagster``. The data plane never waits for any of this.
"""

import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psycopg
from psycopg.conninfo import conninfo_to_dict

from pipeline_platform.errors import ConfigError, ServiceError
from pipeline_platform.services import ensure_database
from pipeline_platform.settings import Settings
from pipeline_platform.supervisor.children import Child
from pipeline_platform.supervisor.programs import answers, environment, program

DATABASE = "dagster"
MODULE = "pipeline_platform.definitions"
LOCATION = "pipeline_platform"  # as in workspace.yaml: schedules and sensors are remembered under it

_INSTANCE_FILES = (
    Path(__file__).parent.parent.parent / "dagster.yaml",
    Path(__file__).parent.parent / "_dagster" / "dagster.yaml",
)
_SOCKET_PATH_MAX = 100  # the system's limit is 107, 103 on macOS
_LOADED = """
{workspaceOrError{...on Workspace{locationEntries{
    loadStatus locationOrLoadError{__typename ...on PythonError{message}}
}}}}"""
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


def instance_directory(home: Path) -> Path:
    """``home/dagster`` with the platform's dagster.yaml, as DAGSTER_HOME."""
    directory = home.resolve() / "dagster"
    directory.mkdir(parents=True, exist_ok=True)
    for file in _INSTANCE_FILES:
        if file.exists():
            shutil.copyfile(file, directory / "dagster.yaml")
            return directory
    raise ConfigError(f"no dagster.yaml at {_INSTANCE_FILES[0]}: reinstall pipeline-platform, or up --no-dagster")


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
    directory = instance_directory(home)
    socket = _socket_path(directory)
    workspace = directory / "workspace.yaml"
    workspace.write_text(f"load_from:\n- grpc_server:\n    socket: {socket}\n    location_name: {LOCATION}\n")
    env = environment(settings) | storage_environment(settings.database_url) | {"DAGSTER_HOME": str(directory)}
    url = f"http://127.0.0.1:{settings.dagster_port}"

    def child(name: str, *arguments: str, **more: Any) -> Child:
        return Child(name, home / "logs" / f"{name}.log", partial(program, home, name, arguments, env), **more)

    code = ("dagster", "api", "grpc", "--socket", str(socket), "--module-name", MODULE, "--location-name", LOCATION)
    web = ("dagster_webserver", "--host", "127.0.0.1", "--port", str(settings.dagster_port))
    return [
        child("dagster-code", *code, "--log-level", "warning", ready=socket.exists),
        child("dagster-daemon", "dagster._daemon", "run", "--workspace", str(workspace), ready=partial(_healthy, url)),
        child("dagster-web", *web, "--workspace", str(workspace), ready=partial(_shows_definitions, url)),
    ]


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
    failed = [entry["locationOrLoadError"] for entry in entries if entry["loadStatus"] == "LOADED"]
    for found in failed:
        if found["__typename"] == "PythonError":
            raise ServiceError(f"Dagster cannot load {MODULE}: {found['message']}")
    return bool(entries) and len(failed) == len(entries)


def _healthy(url: str) -> bool:
    if not answers(f"{url}/server_info"):
        return False
    states = _ask(url, _HEALTHY)["instance"]["daemonHealth"]["allDaemonStatuses"]
    return all(state["healthy"] for state in states if state["required"])


def _ask(url: str, query: str) -> dict[str, Any]:
    """One GraphQL query's data; the web server is slow while its siblings start."""
    return httpx.post(f"{url}/graphql", json={"query": query}, timeout=60).json()["data"]
