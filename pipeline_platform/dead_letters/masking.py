"""Masks secrets in what operators see: the values of keys whose names mark a secret are not shown.

Works on text, because the input is often invalid JSON and has to be shown as it is. A value may be an object or a list.
A document may be inside a string of another, with its quotes escaped.
"""

import contextlib
import json
import re

from pipeline_platform.telemetry.redaction import names_secret

# The number of backslashes before the quotes of a document is its depth in others.
_KEY = re.compile(r"""(?P<quote>\\*")(?P<name>(?:[^"\\]|\\(?!\\*")[^"])*)(?P=quote)\s*:\s*""")
_BARE = re.compile(r"[^\s,\]}\"\\]*")


def mask(text: str) -> str:
    """The same text, with the values of secret keys as "***"."""
    shown: list[str] = []
    at = 0
    while found := _KEY.search(text, at):
        if _is_secret(found["name"]):
            shown += text[at : found.end()], f"{found['quote']}***{found['quote']}"
            at = _end_of_value(text, found.end(), found["quote"])
        else:
            shown.append(text[at : found.end()])
            at = found.end()
    return "".join(shown) + text[at:]


def _is_secret(name: str) -> bool:
    # A name that is no JSON string is checked as it is written.
    with contextlib.suppress(ValueError):
        name = json.loads(f'"{name}"')
    return names_secret(name)


def _end_of_value(text: str, at: int, quote: str) -> int:
    """The end of a value. A value without an end is hidden to the end of the text."""
    if text.startswith(quote, at):
        return _end_of_string(text, at, quote)
    if text[at : at + 1] not in ("{", "["):
        found = _BARE.match(text, at)
        return found.end() if found else at
    depth = 0
    while at < len(text):
        if text.startswith(quote, at):
            at = _end_of_string(text, at, quote)
            continue
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(text[at], 0)
        at += 1
        if not depth:
            return at
    return len(text)


def _end_of_string(text: str, at: int, quote: str) -> int:
    """The end of the next quote of the same depth. A quote with more backslashes is part of the string."""
    for found in re.finditer(r'\\*"', text[at + len(quote) :]):
        # Pairs of backslashes before a quote are characters of the string.
        if len(found[0]) >= len(quote) and (len(found[0]) - len(quote)) % (2 * len(quote)) == 0:
            return at + len(quote) + found.end()
    return len(text)
