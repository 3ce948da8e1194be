"""Captures golden requests: `python -m pipeline_platform_tests.capture_golden`.

Runs the real SDKs against a server that only records, and writes what they sent to golden/*.json. Run it again when
an SDK has a new version, and keep the files of the old ones: they are what clients in the field still send.
"""

import base64
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from pipeline_platform_tests.support.sdks import SDKS, call_everything, make_client, version

GOLDEN = Path(__file__).parent / "golden"
WRITE_KEY = "golden-write-key"
# How each SDK is set up, by the name of the file's last part.
WAYS: dict[str, dict[str, Any]] = {
    "batch": {"gzip": False, "upload_interval": 1.0},
    "gzip": {"gzip": True, "upload_interval": 1.0},
    "sync": {"sync_mode": True},
}


class _Recorder(ThreadingHTTPServer):
    """Answers every POST with success and remembers it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: _Recorder

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = [[name, value] for name, value in self.headers.items() if name != "Host"]
        recorded = {"method": "POST", "path": self.path, "headers": headers, "body": base64.b64encode(body).decode()}
        self.server.requests.append(recorded)
        self.send_response(200)
        self.send_header("Content-Length", "16")
        self.end_headers()
        self.wfile.write(b'{"success":true}')

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def capture(sdk: str, way: str) -> dict[str, Any]:
    """What an SDK sends for one of every call, and one more whose property is no JSON (NaN)."""
    recorder = _Recorder()
    Thread(target=recorder.serve_forever, daemon=True).start()
    errors: list[Any] = []
    client = make_client(sdk, recorder.url, WRITE_KEY, errors, **WAYS[way])
    message_ids = call_everything(client)
    _, unsound = client.track("user-1", "Measured", {"value": float("nan")})
    if way != "sync":
        client.flush()
        client.join()
    recorder.shutdown()
    recorder.server_close()
    if errors:
        raise RuntimeError(f"{sdk} could not deliver: {errors}")
    return {
        "sdk": SDKS[sdk],
        "version": version(sdk),
        "message_ids": message_ids,
        "unsound_message_id": unsound["messageId"],
        "requests": recorder.requests,
    }


def main() -> None:
    """Write one file for each SDK and way."""
    GOLDEN.mkdir(exist_ok=True)
    for sdk in SDKS:
        for way in WAYS:
            captured = capture(sdk, way)
            path = GOLDEN / f"{captured['sdk']}-{captured['version']}-{way}.json"
            path.write_text(json.dumps(captured, indent=1) + "\n")


if __name__ == "__main__":
    main()
