"""What is secret, and its removal from text: from logs, errors of the command line, and events shown to operators.

These are secrets: the settings in SECRET_SETTINGS; passwords in all other settings that are URLs; values under a name
with one of the words below; and, recognised by their form, write keys, Authorization headers, and passwords in URLs and
connection strings.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import cast
from urllib.parse import unquote

from pipeline_platform.settings import Settings

# Whoever has one of these addresses can send to the channel.
SECRET_SETTINGS = frozenset({"alert_heartbeat_url", "alert_urls", "console_token"})
_CREDENTIALS = (
    "passw", "token", "secret", "authorization", "cookie", "credential",
    "accesskey", "apikey", "privatekey", "writekey",
)  # fmt: skip
# Only in events: a name in a log may contain these letters by chance ("discarded").
_PERSONAL = ("card", "cvv", "cvc", "iban", "ssn")
_GONE = "[removed]"
# Shorter values would also remove words that are not secrets.
_SECRET_LENGTH_MIN = 6
_FORMS = (
    # postgresql://user:password@host, redis://:password@host; only characters that need escaping end a password.
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s:/@'\"]*):[^\s/'\"]+@", re.IGNORECASE), rf"\1:{_GONE}@"),
    (re.compile(r"(\bpass(?:word|wd)?['\"]?\s*[=:]\s*)('[^']*'|\"[^\"]*\"|[^\s,;&]+)", re.IGNORECASE), rf"\1{_GONE}"),
    (
        re.compile(r"(\bauthorization['\"]?\s*[=:,]\s*)(b?'[^']*'|b?\"[^\"]*\"|[^\r\n,;]+)", re.IGNORECASE),
        rf"\1{_GONE}",
    ),
    (re.compile(r"\b(basic|bearer)\s+[A-Za-z0-9+/=_.~-]{8,}", re.IGNORECASE), rf"\1 {_GONE}"),
    (re.compile(r"(\bwrite_?key['\"]?\s*[=:]\s*)('[^']*'|\"[^\"]*\"|[^\s,;&]+)", re.IGNORECASE), rf"\1{_GONE}"),
    # A write key, see write_keys.py.
    (re.compile(r"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])"), _GONE),
)


def names_credential(name: str) -> bool:
    """Whether a value under this name is a password, a token or the like."""
    return _has(name, _CREDENTIALS)


def names_secret(name: str) -> bool:
    """Whether a value under this name in an event is a credential, or a number of a card, an account or a person."""
    return _has(name, _CREDENTIALS + _PERSONAL)


def _has(name: str, words: tuple[str, ...]) -> bool:
    plain = re.sub(r"[\W_]", "", name).lower()
    return any(word in plain for word in words)


def holds_secret(setting: str) -> bool:
    """Whether a setting is a secret or may contain one."""
    return setting in SECRET_SETTINGS or setting.endswith("_url")


class Redactor:
    """Removes secrets from text and values."""

    def __init__(self, settings: Settings) -> None:
        self._secrets = sorted(set(_secrets_of(settings)), key=len, reverse=True)

    def text(self, text: str) -> str:
        """The text without secrets."""
        for secret in self._secrets:
            text = text.replace(secret, _GONE)
        for form, instead in _FORMS:
            text = form.sub(instead, text)
        return text

    def value(self, value: object) -> object:
        """Remove secrets from a value that becomes JSON."""
        if isinstance(value, Mapping):
            named = cast("Mapping[object, object]", value)
            return {
                str(name): _GONE if names_credential(str(name)) else self.value(part) for name, part in named.items()
            }
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value(part) for part in cast("Iterable[object]", value)]
        return value if isinstance(value, int | float | None) else self.text(str(value))


def _secrets_of(settings: Settings) -> Iterator[str]:
    for name, value in settings.model_dump().items():
        if name in SECRET_SETTINGS:
            yield from _texts(value)
        elif holds_secret(name) and value:
            yield from _passwords(str(value))


def _passwords(url: str) -> Iterator[str]:
    """The password of a URL and its parts: if it was not escaped, an error may quote a part of it as the host."""
    password = url.partition("://")[2].rpartition("@")[0].partition(":")[2]
    for form in {password, unquote(password), *re.split("[@/:?#]", password)}:
        if len(form) >= _SECRET_LENGTH_MIN:
            yield form


def _texts(value: object) -> Iterator[str]:
    """The value and, if it is a list in any form, its parts."""
    if isinstance(value, str):
        yield from (part for part in {value, *re.split(r"[\s,]+", value)} if len(part) >= _SECRET_LENGTH_MIN)
    elif isinstance(value, Mapping):
        yield from _texts(list(cast("Mapping[object, object]", value).values()))
    elif isinstance(value, list | tuple | set | frozenset):
        for part in cast("Iterable[object]", value):
            yield from _texts(part)
