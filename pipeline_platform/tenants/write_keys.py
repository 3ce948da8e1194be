"""Write keys: the secrets with which clients send. 256 random bits, shown once, stored only as their SHA-256.

A plain hash is sufficient: unlike a password, 256 random bits cannot be guessed.
"""

import hashlib
import secrets


def new_write_key() -> str:
    """A new write key: 43 characters that need no escaping in URLs, headers and JSON."""
    return secrets.token_urlsafe(32)


def hash_write_key(write_key: str) -> bytes:
    """The 32 bytes that control.write_keys holds. Any text has a hash."""
    return hashlib.sha256(write_key.encode("utf-8", "surrogatepass")).digest()
