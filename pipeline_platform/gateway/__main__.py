"""The gateway's process: `python -m pipeline_platform.gateway`.

Serves until SIGTERM or SIGINT, and then still answers the current requests. Logs go to standard error and contain the
address. Needs PIPELINE_DATABASE_URL. It starts without the database and reports that at /readyz.
"""

import argparse
import gc
import logging
import os
import resource
import signal
import socket
import sys

import uvicorn

from pipeline_platform.errors import ConfigError
from pipeline_platform.gateway.app import make_app, make_gateway
from pipeline_platform.gateway.bodies import body_seconds_max
from pipeline_platform.gateway.deadlines import Deadlines
from pipeline_platform.gateway.http_protocol import bound
from pipeline_platform.settings import Settings
from pipeline_platform.telemetry.logs import set_up_logging
from pipeline_platform.telemetry.metrics.processes import share_numbers
from pipeline_platform.telemetry.tracing import start_tracing

_LOG = logging.getLogger("pipeline_platform.gateway")
_KEEP_ALIVE_S = 75
_STOP_GRACE_S = 10
_BACKLOG = 2_048
# Open files besides the clients': servers, logs, the interpreter.
_FILES_BESIDE = 64


def main() -> int:
    """Serve; returns the exit code."""
    # Only its user may read the files that it writes.
    os.umask(0o077)
    parser = argparse.ArgumentParser(prog="python -m pipeline_platform.gateway", description=main.__doc__)
    parser.add_argument("--port", type=int, help="port to listen on (default: PIPELINE_GATEWAY_PORT); 0: any free")
    arguments = parser.parse_args()
    try:
        settings = Settings.read()
        set_up_logging(settings)
        if not settings.database_url:
            raise ConfigError("PIPELINE_DATABASE_URL is empty: set it, or start everything with pipeline-platform up")
        listener = _listen(settings.gateway_host, settings.gateway_port if arguments.port is None else arguments.port)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    return _serve(settings, listener)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigError(f"cannot listen on {host}:{port} ({error}): set PIPELINE_GATEWAY_PORT") from error
    return listener


def _serve(settings: Settings, listener: socket.socket) -> int:
    """Serve until a signal (0) or until a part of the gateway has failed (1)."""
    host, port = listener.getsockname()[:2]
    share_numbers(settings.home, f"gateway-{port}")

    def stop(*_: object) -> None:
        server.should_exit = True

    gateway = make_gateway(settings, settings.database_url, start_tracing(f"gateway-{port}"), stop)
    connections = _connections(settings.connections_max)
    request_s = body_seconds_max(settings) + settings.answer_timeout_s + settings.body_timeout_s
    deadlines = Deadlines(settings.body_timeout_s, request_s, _KEEP_ALIVE_S, connections)
    config = uvicorn.Config(
        make_app(gateway),
        loop="uvloop",
        http=bound(connections, deadlines),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=_STOP_GRACE_S,
    )
    server = uvicorn.Server(config)
    # uvicorn raises the signal again when it has stopped. A requested stop is no failure.
    for asked in (signal.SIGTERM, signal.SIGINT):
        signal.signal(asked, stop)
    # Garbage collection skips the objects that live as long as the process.
    gc.freeze()
    _LOG.info("gateway on http://%s:%d", host, port)
    server.run(sockets=[listener])
    return 1 if gateway.background.ended else 0


def _connections(wanted: int) -> int:
    """Raise the limit of open files for the connections. Returns how many it allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _FILES_BESIDE
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return max(1, min(wanted, soft - _FILES_BESIDE))
    return wanted


if __name__ == "__main__":
    sys.exit(main())
