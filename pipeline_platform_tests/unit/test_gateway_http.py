"""The gateway's HTTP layer, byte by byte: nothing is read as another request, nothing is held without a deadline."""

import re
import socket
import time
from collections.abc import Iterator

import psutil
import pytest

from pipeline_platform_tests.support.http_server import HttpServer, everything
from pipeline_platform_tests.support.waiting import wait_for

BODY = b'{"event": "x"}'
SMUGGLED = b"POST /smuggled HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"
LAST = b"GET /last HTTP/1.1\r\nConnection: close\r\n\r\n"
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAA\r\n"


def post(headers: bytes = b"", body: bytes = BODY, path: bytes = b"/one", version: bytes = b"HTTP/1.1") -> bytes:
    return b"POST %s %s\r\n%sContent-Length: %d\r\n\r\n%s" % (path, version, headers, len(body), body)


def chunked(*lines: bytes, headers: bytes = b"Transfer-Encoding: chunked\r\n") -> bytes:
    return b"POST /one HTTP/1.1\r\n" + headers + b"\r\n" + b"".join(lines)


CHUNK = b"%x\r\n%s\r\n" % (len(BODY), BODY)
END = b"0\r\n\r\n"

# Processed exactly once, and what follows on the connection is read as the next request.
SOUND = {
    "content length": [post()],
    "spaces around a content length": [post().replace(b"Length: 14", b"Length:  14 \t")],
    "chunks": [chunked(CHUNK, END)],
    "chunks in capitals": [chunked(CHUNK, END, headers=b"TRANSFER-ENCODING: Chunked\r\n")],
    "chunk extensions": [chunked(CHUNK.replace(b"e\r\n", b'e;a=b;c="d"\r\n', 1), END)],
    "leading zeros of a chunk": [chunked(b"0000" + CHUNK, b"000" + END)],
    "trailers": [chunked(CHUNK, b"0\r\nX-Checksum: 1\r\nAuthorization: Basic eDo=\r\n\r\n")],
    "absolute form": [post(path=b"http://elsewhere/one")],
    "h2c, all at once": [post(H2C)],
    "h2c, the body in a segment of its own": [post(H2C)[: -len(BODY)], BODY],
    "h2c, chunks": [chunked(CHUNK, END, headers=H2C + b"Transfer-Encoding: chunked\r\n")],
    "h2c, in small segments": [post(H2C)[at : at + 40] for at in range(0, len(post(H2C)), 40)],
    "h2c, a request in the body": [post(H2C, SMUGGLED)[: -len(SMUGGLED)], SMUGGLED],
    "websocket": [post(b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n")],
    "an upgrade that nobody asks for": [post(b"Upgrade: h2c\r\n")],
    "a connection that names no upgrade": [post(b"Connection: upgrade\r\n")],
    "a request in the body": [post(body=SMUGGLED)],
    "a request in the unread body": [post(body=SMUGGLED, path=b"/early")],
    "an unread request in the body": [post(body=SMUGGLED, path=b"/early")[: -len(SMUGGLED)], SMUGGLED],
    "two spaces in the request line": [post().replace(b"POST /one", b"POST  /one")],
    "empty lines before a request": [b"\r\n\r\n" + post()],
}
# Refused, and the connection is closed: nothing of what follows is read.
UNSOUND = {
    "content length and chunks": chunked(CHUNK, END, headers=b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n"),
    "chunks and content length": chunked(CHUNK, END, headers=b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n"),
    "two content lengths": post(b"Content-Length: 4\r\n"),
    "the same content length twice": post(b"Content-Length: 14\r\n"),
    "a list of content lengths": post().replace(b": 14", b": 14, 14"),
    "a content length with +": post().replace(b": 14", b": +14"),
    "a content length with -": post().replace(b": 14", b": -14"),
    "a content length in hex": post().replace(b": 14", b": 0xe"),
    "a content length with a space in it": post().replace(b": 14", b": 1 4"),
    "no content length": post().replace(b": 14", b":"),
    "a content length that overflows": post().replace(b": 14", b": 18446744073709551630"),
    "an unknown coding": chunked(CHUNK, END, headers=b"Transfer-Encoding: xchunked\r\n"),
    "chunks, then another coding": chunked(CHUNK, END, headers=b"Transfer-Encoding: chunked, identity\r\n"),
    "a vertical tab in the coding": chunked(CHUNK, END, headers=b"Transfer-Encoding: \x0bchunked\r\n"),
    "a quoted coding": chunked(CHUNK, END, headers=b'Transfer-Encoding: "chunked"\r\n'),
    "a space before the colon": chunked(CHUNK, END, headers=b"Transfer-Encoding : chunked\r\n"),
    "a folded header": post(b"X-A: b\r\n c\r\n"),
    "a folded coding": chunked(CHUNK, END, headers=b"Transfer-Encoding:\r\n chunked\r\n"),
    "a bare line feed": post(b"X-A: b\n"),
    "a bare carriage return": post(b"X-A: b\rContent-Length: 3\r\n"),
    "NUL in a value": post(b"X-A: b\0c\r\n"),
    "NUL in a name": post(b"X\0A: b\r\n"),
    "a header without a name": post(b": b\r\n"),
    "a space before the first header": post(b" X-A: b\r\n"),
    "a chunk size that overflows": chunked(b"F" * 17 + b"\r\n" + BODY),
    "a chunk size with +": chunked(b"+" + CHUNK, END),
    "a chunk size with 0x": chunked(b"0x" + CHUNK, END),
    "a chunk size with a space": chunked(CHUNK.replace(b"e\r\n", b"e \r\n", 1), END),
    "a chunk without a size": chunked(b"\r\n" + BODY, END),
    "a bare line feed after a chunk size": chunked(CHUNK.replace(b"e\r\n", b"e\n", 1), END),
    "a chunk longer than its size": chunked(CHUNK.replace(b"e\r\n", b"d\r\n", 1), END),
    "a bare line feed in a chunk extension": chunked(CHUNK.replace(b"e\r\n", b"e;a\nb\r\n", 1), END),
    "a length in the trailers": chunked(CHUNK, b"0\r\nContent-Length: 50\r\n\r\n"),
    "an upgrade in the trailers": chunked(CHUNK, b"0\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n"),
    "CONNECT": b"CONNECT /one HTTP/1.1\r\n\r\n",
    "CONNECT to a host": b"CONNECT one:443 HTTP/1.1\r\n\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9": b"GET /one\r\n",
    "HTTP/1.2": post(version=b"HTTP/1.2"),
    "a method of small letters": post().replace(b"POST", b"post"),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n",
    "129 headers": post(b"A: b\r\n" * 129),
    "a head of 70 kB": post(b"X: " + b"x" * 70_000 + b"\r\n"),
    "a path that is no text": post(path=b"/\xff"),
}


@pytest.fixture(scope="module")
def server() -> Iterator[HttpServer]:
    with HttpServer() as server:
        yield server


def statuses(answers: bytes) -> list[int]:
    return [int(code) for code in re.findall(rb"HTTP/1\.1 (\d\d\d) ", answers)]


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_request_is_processed_once_and_the_connection_stays_in_step(server: HttpServer, name: str) -> None:
    server.asked.clear()
    answers = server.exchange(*SOUND[name], LAST)
    [asked, last] = server.asked
    assert (last.path, last.body) == ("/last", b"")
    assert asked.path in ("/one", "/early")
    assert asked.body == (b"" if asked.path == "/early" else SMUGGLED if "in the body" in name else BODY)
    assert b"authorization" not in dict(asked.headers)
    assert statuses(answers) == [401 if asked.path == "/early" else 200, 200]


@pytest.mark.parametrize("name", UNSOUND)
def test_an_unsound_request_is_refused_and_nothing_after_it_is_read(server: HttpServer, name: str) -> None:
    server.asked.clear()
    answers = server.exchange(post(path=b"/before"), UNSOUND[name] + SMUGGLED + LAST)
    assert statuses(answers) == [200, 400]
    assert b'"invalid_http"' in answers
    # One whose trailers are at fault was whole, with a body, when it was given to the application.
    assert [asked.path for asked in server.asked] == ["/before"]


def test_http_1_0(server: HttpServer) -> None:
    """One request a connection, with keep-alive as well."""
    server.asked.clear()
    answers = server.exchange(post(b"Connection: keep-alive\r\n", version=b"HTTP/1.0") + SMUGGLED)
    assert statuses(answers) == [200]
    assert [asked.body for asked in server.asked] == [BODY]


def test_head_is_answered_without_a_body(server: HttpServer) -> None:
    answers = server.exchange(b"HEAD /one HTTP/1.1\r\n\r\n" + LAST)
    assert statuses(answers) == [200, 200]
    assert answers.count(b"{}") == 1


def test_expect_100_continue(server: HttpServer) -> None:
    server.asked.clear()
    whole = post(b"Expect: 100-continue\r\n")
    answers = server.exchange(whole[: -len(BODY)], BODY)
    assert statuses(answers) == [100, 200]
    assert [asked.body for asked in server.asked] == [BODY]
    # Answered before the body: what follows may be the body or the next request, so nothing is read.
    answers = server.exchange(post(b"Expect: 100-continue\r\n", path=b"/early")[: -len(BODY)] + SMUGGLED)
    assert statuses(answers) == [401]
    assert [asked.path for asked in server.asked] == ["/one", "/early"]


def test_a_request_is_answered_once_whatever_is_wrong_with_its_rest(server: HttpServer) -> None:
    begin = chunked().replace(b"/one", b"/early")
    assert statuses(server.exchange(begin, b"no chunk\r\n" + SMUGGLED)) == [401]


def test_requests_that_came_together_are_answered_in_their_order(server: HttpServer) -> None:
    server.asked.clear()
    paths = [b"/one%d" % number for number in range(10)]
    answers = server.exchange(b"".join(post(path=path) for path in paths) + b"garbage\r\n")
    assert statuses(answers) == [200] * 10 + [400]
    assert [asked.path.encode() for asked in server.asked] == paths


def test_requests_without_an_answer_are_bounded(server: HttpServer) -> None:
    server.asked.clear()
    assert statuses(server.exchange(post() * 1_000)) == [200] * 17 + [400]
    assert len(server.asked) == 17


# Time


def test_no_byte_moves_a_deadline() -> None:
    """Connections that send a little for ever, in each phase."""
    done = post()
    unread = post(path=b"/early", body=b"x" * 100_000)[:200]
    with HttpServer(head_s=0.5, idle_s=1, request_s=2) as server:
        phases = {
            "a head": (b"POST /one HTTP/1.1\r\nX: ", b"x"),
            "no head at all": (b"", b"\r\n"),
            "many headers": (b"POST /one HTTP/1.1\r\n", b"X: y\r\n"),
            "idle": (done, b"\r\n"),
            "the head of the second request": (done + b"P", b"O"),
            "the rest of a body that nobody reads": (unread, b"x"),
            "an empty line after an early answer": (post(path=b"/early"), b"\r\n"),
            "trailers": (chunked(CHUNK, b"0\r\nX: "), b"x"),
            "a chunk extension": (chunked(b"5;a="), b"x"),
            "a body that never ends": (post(body=b"x" * 100_000)[:200], b"x"),
        }
        held = {name: server.connect() for name in phases}
        for name, connection in held.items():
            connection.sendall(phases[name][0])
        deadline = time.monotonic() + 20
        while held and time.monotonic() < deadline:
            for name, connection in [*held.items()]:
                if is_closed(connection, phases[name][1]):
                    held.pop(name).close()
        assert list(held) == []
        wait_for("the places to be free", lambda: server.connections == 0)


def is_closed(connection: socket.socket, more: bytes) -> bool:
    """Whether the server has closed it; `more` is sent otherwise."""
    try:
        connection.sendall(more)
        connection.settimeout(0.01)
        return connection.recv(65_536) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


HALF_UNREAD = post(path=b"/early", body=b"x" * 100)[:100]


@pytest.mark.parametrize(
    "sent", [b"", b"P", post(), HALF_UNREAD, post() + b"\r\n", b"GET /large HTTP/1.1\r\n\r\n"], ids=range(6)
)
def test_silence_frees_the_place(sent: bytes) -> None:
    """Also of a client that reads nothing of a large answer."""
    with HttpServer(head_s=0.5, idle_s=1, request_s=1) as server, server.connect() as connection:
        wait_for("the connection", lambda: server.connections == 1)
        connection.sendall(sent)
        wait_for("the place to be free", lambda: server.connections == 0)


def test_idle_connections_give_way_when_most_places_are_taken() -> None:
    with HttpServer(head_s=0.5, idle_s=3_600, connections_max=8) as server:
        idle = [server.connect() for _ in range(7)]
        for connection in idle:
            connection.sendall(post())
        wait_for("all of them to be served", lambda: len(server.asked) == 7)
        wait_for("places to be free", lambda: server.connections <= 6)
        for connection in idle:
            connection.close()


# Memory


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        (chunked(CHUNK, b"0\r\n"), b"X-Trailer: " + b"x" * 1_000 + b"\r\n"),
        (chunked(CHUNK, b"0\r\nX: "), b"x" * 1_000),
        (chunked(b"5;"), b"a=" + b"x" * 1_000 + b";"),
        (b"POST /one HTTP/1.1\r\n", b"X: " + b"x" * 1_000 + b"\r\n"),
        (b"POST /", b"x" * 1_000),
        (b"POST /one HTTP/1.1\r\nX: ", b"x" * 1_000),
        (post(), b"\r\n" * 500),
    ],
)
def test_what_is_no_body_is_bounded(server: HttpServer, begin: bytes, more: bytes) -> None:
    before = psutil.Process().memory_info().rss
    with server.connect() as connection:
        try:
            connection.sendall(begin)
            for _ in range(11_000):
                connection.sendall(more)
        except OSError:
            pass
        answers = everything(connection)
    assert psutil.Process().memory_info().rss - before < 8_000_000
    # A client that goes on sending may be reset before it reads the answer.
    assert statuses(answers)[-1:] in ([400], [])
