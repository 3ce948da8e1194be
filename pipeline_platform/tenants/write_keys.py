"""Write keys: what a client shows to send events. 256 random bits, shown once, stored only as their SHA-256.

A plain hash is right here: unlike a password, 256 random bits cannot be guessed from it.
"""

import hashlib
import secrets


def new_write_key() -> str:
    """43 characters that go unescaped into URLs, headers and JSON."""
    return secrets.token_urlsafe(32)


def hash_write_key(write_key: str) -> bytes:
    """The 32 bytes that control.write_keys holds; any text has one."""
    return hashlib.sha256(write_key.encode("utf-8", "surrogatepass")).digest()
