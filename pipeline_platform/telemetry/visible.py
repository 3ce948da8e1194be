"""Makes text from outside safe to show: characters that control a terminal or reorder a line become visible escapes.

Names, ids, errors and file contents come from clients. On a terminal a raw ESC changes the screen, a line break forges
a line, and a bidirectional override shows a different text.
"""

import re

# C0 and C1 controls and DEL, direction marks and overrides, line separators, byte order marks, lone surrogates. Joiners
# are kept: emoji and several scripts need them.
_CONTROLS = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
_IN_LINES = frozenset("\n\t")


def visible(text: str) -> str:
    """The text as one line."""
    return _CONTROLS.sub(_escape, text) if not text.isprintable() else text


def visible_lines(text: str) -> str:
    """The text with its line breaks and tabs."""
    return _CONTROLS.sub(lambda found: found[0] if found[0] in _IN_LINES else _escape(found), text)


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")
