"""Encryption of what is stored about sign-ins at tool servers, with the keys of MCP_TOKEN_KEYS."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence

import orjson
from pydantic import SecretStr

from backend.chat.models import Json
from backend.setting_types import token_keys

_NONCE_BYTES = 12
_VERSION = b"\x01"


class Unreadable(Exception):
    """A sealed value was made with a key that is no longer known, for another place, or was changed."""


class Seal:
    """AES-256-GCM with a random nonce. The first key encrypts, each may decrypt: that is how keys are rotated.

    A value is bound to its `place`, so that a row's value cannot be used in another row.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # 20 ms, which few processes need

        self._ciphers = [AESGCM(key) for key in keys]
        self._newest = keys[0]

    @classmethod
    def of(cls, setting: SecretStr | None) -> Seal | None:
        """Returns None without keys. The setting was validated."""
        return cls(token_keys(setting.get_secret_value())) if setting is not None else None

    def seal(self, value: Json, place: str) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return _VERSION + nonce + self._ciphers[0].encrypt(nonce, orjson.dumps(value), place.encode())

    def open(self, sealed: bytes, place: str) -> Json:
        """Returns the value. Raises Unreadable."""
        from cryptography.exceptions import InvalidTag

        nonce, text = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        if sealed[:1] == _VERSION and len(nonce) == _NONCE_BYTES:
            for cipher in self._ciphers:
                try:
                    return orjson.loads(cipher.decrypt(nonce, text, place.encode()))
                except InvalidTag:
                    continue
        raise Unreadable

    def tag(self, words: str) -> str:
        """Returns a keyed hash, which only this service can compute."""
        digest = hmac.digest(hashlib.sha256(b"tag" + self._newest).digest(), words.encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")
