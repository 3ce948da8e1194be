"""Dagster as three children: one code server, the daemon, the web server behind its guard (dagster_web.py).

`dagster dev` starts the same three (and a proxy) one after the other. It took 25 to 30 s and 680 MB here. Started at
once they serve after 10 to 11 s with 440 MB, and each is restarted separately. The web server of `dagster dev` has no
guard and no way to add one. Tables are in the database `dagster`, other files in ``home/dagster``. The data plane never
waits for Dagster.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy.engine import URL

from pipeline_platform import db
from pipeline_platform.connections import options_of, stated_for
from pipeline_platform.errors import ConfigError
from pipeline_platform.local.instance.configuration import write_configuration
from pipeline_platform.local.services import ensure_database
from pipeline_platform.local.supervisor.children import Child
from pipeline_platform.local.supervisor.programs import answers, environment, program
from pipeline_platform.settings import Settings

DATABASE = "dagster"
MODULE = "pipeline_platform.definitions"
# As in workspace.yaml and pyproject.toml: Dagster stores schedules and sensors under this name.
LOCATION = "pipeline_platform"

_NICENESS = 5  # on a busy machine events have priority over the control plane
_PAGE_MS = "15000"  # nobody waits longer for a page; dagster-webserver has the same limit
_SOCKET_PATH_MAX = 100  # the system's limit is 107, 103 on macOS
_LOADED = "{workspaceOrError{...on Workspace{locationEntries{loadStatus locationOrLoadError{__typename}}}}}"
_RELOAD = "mutation{reloadWorkspace{__typename}}"
_HEALTHY = "{instance{daemonHealth{allDaemonStatuses{required healthy}}}}"


def storage_environment(database_url: str, **stated: str) -> dict[str, str]:
    """The variable with Dagster's database for dagster.yaml: `dagster`, on the same server as the pipeline's.

    stated: more settings of its sessions.
    """
    parts = {name: str(value) for name, value in conninfo_to_dict(database_url).items()}
    netloc = {name: parts.pop(name, None) for name in ("user", "password")}
    parts |= {
        "application_name": "dagster",
        "client_encoding": "UTF8",
        "options": f"{parts.get('options', '')} {options_of(stated_for(stated))}".strip(),
    }
    parts.pop("dbname", None)
    # SQLAlchemy 2.1 uses psycopg 3 for a plain postgresql://. Dagster's storage fails with it at run time.
    url = URL.create("postgresql+psycopg2", netloc["user"], netloc["password"], database=DATABASE, query=parts)
    return {"DAGSTER_PG_URL": url.render_as_string(hide_password=False)}


def ensure_storage(database_url: str) -> None:
    """Create Dagster's database if it does not exist. ConfigError if it cannot be used."""
    try:
        ensure_database(database_url, DATABASE)
        db.connect(make_conninfo(database_url, dbname=DATABASE), "supervisor").close()
    except psycopg.errors.InsufficientPrivilege as error:
        raise ConfigError(
            f"no database {DATABASE!r} on your server, and we may not make it: CREATE DATABASE {DATABASE}, "
            "or up --no-dagster"
        ) from error


def dagster(settings: Settings) -> list[Child]:
    """The three children; the web server is ready when it shows the loaded definitions."""
    return _three(settings, ("dagster", "api", "grpc"), show_code_log=False)


def dagster_dev(settings: Settings) -> list[Child]:
    """The children for work on the definitions: "Reload" in the UI reloads them, their output goes to this terminal."""
    return _three(settings, ("dagster", "code-server", "start"), show_code_log=True)


def _three(settings: Settings, code_server: Sequence[str], *, show_code_log: bool) -> list[Child]:
    home = settings.home
    env = _environment(settings)
    socket = _socket_path(dagster_home(home))
    workspace = dagster_home(home) / "workspace.yaml"
    workspace.write_text(f"load_from:\n- grpc_server:\n    socket: {socket}\n    location_name: {LOCATION}\n")
    url = f"http://127.0.0.1:{settings.dagster_port}"
    form = ("--log-format", "json") if settings.log_format == "json" else ()

    def child(name: str, ready: Callable[[], bool], arguments: Sequence[str], more: Mapping[str, str]) -> Child:
        log = None if name == "dagster-code" and show_code_log else name
        start = partial(program, home, log, (*arguments, *form), {**env, **more}, niceness=_NICENESS)
        return Child(name, home / "logs" / f"{name}.log", start, ready)

    code = (*code_server, "--socket", str(socket), "--module-name", MODULE, "--location-name", LOCATION)
    daemon = (f"{__package__}.dagster_daemon", "--socket", str(socket), "--workspace", str(workspace))
    web = (f"{__package__}.dagster_web", "--port", str(settings.dagster_port), "--workspace", str(workspace))
    of_web = storage_environment(settings.database_url, statement_timeout=_PAGE_MS)
    return [
        child("dagster-code", socket.exists, (*code, "--log-level", "warning"), {}),
        child("dagster-daemon", partial(_answers_yes, _healthy, url), daemon, {}),
        child("dagster-web", partial(_answers_yes, _shows_definitions, url), web, of_web),
    ]


def command_environment(settings: Settings) -> dict[str, str]:
    """What the commands `dagster` and `dg` need to reach the running instance. settings: with the database's URL."""
    home = settings.home.resolve()
    named = {"PIPELINE_HOME": str(home), "DAGSTER_HOME": str(dagster_home(home))}
    return named | storage_environment(settings.database_url)


def dagster_home(home: Path) -> Path:
    """DAGSTER_HOME of the platform of `home`."""
    return home / "dagster"


def _environment(settings: Settings) -> dict[str, str]:
    """The environment of Dagster's processes. Writes dagster.yaml."""
    directory = dagster_home(settings.home)
    directory.mkdir(parents=True, exist_ok=True)
    write_configuration(directory)
    return {
        **environment(settings),
        **storage_environment(settings.database_url),
        "DAGSTER_HOME": str(directory),
        # A backfill waits while the code server is away. Without it, it fails for good.
        "DAGSTER_BACKFILL_RETRY_DEFINITION_CHANGED_ERROR": "1",
        # The records of a run's hours are stored together: one statement for each event takes most of such a run.
        "DAGSTER_EVENT_BATCH_SIZE": "1000",
    }


def _socket_path(directory: Path) -> Path:
    path = directory / "code.sock"
    if len(str(path)) > _SOCKET_PATH_MAX:
        path = Path(tempfile.mkdtemp(prefix="pipeline-")) / "code.sock"
    path.unlink(missing_ok=True)
    return path


def _answers_yes(question: Callable[[str], bool], url: str) -> bool:
    """Whether the web server answers yes. A time-out counts as no: it is slow while the other children start."""
    try:
        return answers(f"{url}/server_info") and question(url)
    except httpx.TransportError:
        return False


def _shows_definitions(url: str) -> bool:
    entries = _ask(url, _LOADED)["workspaceOrError"].get("locationEntries", [])
    if any(entry["loadStatus"] != "LOADED" for entry in entries):
        return False
    if any(entry["locationOrLoadError"]["__typename"] == "PythonError" for entry in entries):
        # The web server asked before the code server was ready. Invalid definitions end the code server with an error.
        _ask(url, _RELOAD)
        return False
    return bool(entries)


def _healthy(url: str) -> bool:
    states = _ask(url, _HEALTHY)["instance"]["daemonHealth"]["allDaemonStatuses"]
    return all(state["healthy"] for state in states if state["required"])


def _ask(url: str, query: str) -> dict[str, Any]:
    """One GraphQL query's data. Raises httpx.TransportError."""
    return httpx.post(f"{url}/graphql", json={"query": query}, timeout=60, trust_env=False).json()["data"]
