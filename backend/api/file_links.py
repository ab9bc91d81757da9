"""Links to files that need no token, for `<img>`: they are signed, and end after ten to twenty minutes.

A link stays the same for ten minutes, so that browsers keep the picture. Each file has a key of its own.
"""

from __future__ import annotations

import hashlib
import hmac
import time

from backend.chat.models import FilePart
from backend.errors import FileNotFound, Gone

LIVES = 600
"""Seconds for which a link works at least."""


def link_to(part: FilePart, key: str) -> str:
    """Returns the address of a file, with an end and a signature."""
    expires = (int(time.time()) // LIVES + 2) * LIVES
    return f"{part.url}?expires={expires}&signature={_signature(key, part, expires)}"


def check_link(part: FilePart, key: str, expires: int, signature: str) -> None:
    """Raises FileNotFound if the signature is not valid, and Gone if the link has ended."""
    if not hmac.compare_digest(_signature(key, part, expires).encode(), signature.encode("utf-8", "replace")):
        raise FileNotFound
    if expires < time.time():
        raise Gone("This link has ended. Load the conversation again.")


def _signature(key: str, part: FilePart, expires: int) -> str:
    return hmac.new(key.encode(), f"{part.file_id} {expires}".encode(), hashlib.sha256).hexdigest()
