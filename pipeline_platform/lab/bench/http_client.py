"""A plain HTTP client over one keep-alive connection. It is small because it shares two cores with the measured system.

It sends nothing twice. The caller handles failures.
"""

import asyncio
import base64


class Connection:
    """One connection to the gateway on this machine, opened at the first use and after a failure."""

    def __init__(self, port: int, path: str) -> None:
        self._port = port
        self._path = path
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, write_key: str, body: bytes) -> int:
        """Send one request; returns its status. OSError or EOFError if the connection breaks (unknown outcome)."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        basic = base64.b64encode(f"{write_key}:".encode()).decode()
        head = (
            f"POST {self._path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic {basic}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        try:
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = int(answer.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
        except BaseException:
            self.close()
            raise
        return int(answer[9:12])

    def close(self) -> None:
        if self._streams:
            self._streams[1].close()
        self._streams = None
