"""Splits a request of invalid JSON into events, so that one bad event does not affect the others.

Only strings and brackets have to match. So NaN, a control character, broken UTF-8 or nesting beyond any parser's stack
affects only the event that has it. Slow (about 0.3 µs per token): used only for bodies that a parser refused, of a
tenant whose write key is known. Never alters a byte and never drops an event: everything between two commas is one.
"""

import re

from pipeline_platform.errors import RequestRefusedError

# A string, a bracket or a comma. The last alternative, a lone quote, is a string without an end.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{}\[\],]|"', re.DOTALL)
_MEMBER = re.compile(rb'\s*("[^"\\]*+(?:\\.[^"\\]*+)*+")\s*:\s*(.+)', re.DOTALL)
_SPACE = b" \t\r\n"
_MEMBERS_MAX = 1_000


def members(text: bytes) -> list[tuple[bytes, bytes]]:
    """The keys (JSON strings) and values of an object. Raises RequestRefusedError if it cannot be split."""
    found: list[tuple[bytes, bytes]] = []
    parts = _parts(text, b"{", b"}", _MEMBERS_MAX)
    if len(parts) > _MEMBERS_MAX:
        raise _unreadable(f"more than {_MEMBERS_MAX} keys")
    for part in parts:
        member = _MEMBER.match(part)
        if member is None:
            raise _unreadable("the object has a part that is not a key with a value")
        found.append((member[1], member[2]))
    return found


def elements(text: bytes, enough: int) -> list[bytes]:
    """The elements of an array, of any type. Stops after more than `enough`.

    Raises RequestRefusedError if it cannot be split.
    """
    return _parts(text, b"[", b"]", enough)


def _parts(text: bytes, opening: bytes, closing: bytes, enough: int) -> list[bytes]:
    """The text between the outermost brackets, split at the commas outside all other brackets.

    Stops after more than `enough` parts.
    """
    text = text.strip(_SPACE)
    if not (text.startswith(opening) and text.endswith(closing)):
        raise _unreadable(f"expected {opening.decode()} … {closing.decode()}")
    parts: list[bytes] = []
    depth, start, end = 0, 1, len(text) - 1
    for match in _TOKEN.finditer(text):
        token = match.group()
        if token == b"{" or token == b"[":
            depth += 1
        elif token == b"}" or token == b"]":
            depth -= 1
            if depth == 0 and match.start() != end:
                raise _unreadable("more follows after its end")
        elif token == b",":
            if depth == 1:
                parts.append(text[start : match.start()].strip(_SPACE))
                start = match.end()
                if len(parts) > enough:
                    return parts
        elif token == b'"':
            raise _unreadable("a string has no end")
    if depth != 0:
        raise _unreadable("its brackets do not match")
    last = text[start:end].strip(_SPACE)
    if last or parts:
        parts.append(last)
    if not all(parts):
        raise _unreadable("there is nothing between two commas")
    return parts


def _unreadable(why: str) -> RequestRefusedError:
    return RequestRefusedError(400, "invalid_json", f"the body is not readable JSON: {why}")
