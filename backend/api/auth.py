"""Authentication: bearer tokens of users, keys and signatures of services.

The answer to a bad token, key or signature is always 401 and never says what was wrong with it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pydantic import SecretStr
from standardwebhooks.webhooks import Webhook
from starlette.datastructures import Headers

from backend.chat.models import Caller
from backend.config import Settings
from backend.errors import ConfigError, Unauthenticated, ValidationFailed
from backend.ids import UserId

if TYPE_CHECKING:
    from backend.api.tokens import TokenVerifier

LOCAL_USER = UserId("local")
_MAX_TOKEN_CHARS = 8_192
_MAX_KEY_CHARS = 1_024
_USER = re.compile(r"[\x21-\x7e]{1,255}")
SIGNATURE = "webhook-signature"
_PARTS = ("webhook-id", "webhook-timestamp", SIGNATURE)
_MAX_SIGNATURE_CHARS = 4_096


@dataclass(frozen=True, slots=True)
class Identity:
    """The caller of a request. `expires_at` is the Unix time at which the token expires, or None without a token."""

    caller: Caller
    expires_at: float | None = None


class Authenticator:
    """Identifies callers by their request headers, according to AUTH_MODE and the JWT settings.

    Raises ConfigError if JWT_VERIFY_KEY is not a key for JWT_ALGORITHM.
    """

    def __init__(self, settings: Settings) -> None:
        self._mode = settings.auth_mode
        self._tokens = _open_tokens(settings)

    async def identify(self, headers: Headers, address: str) -> Identity:
        """Returns the caller. Raises Unauthenticated if a token is required or invalid, and Unavailable."""
        if self._mode == "none":
            return Identity(Caller(LOCAL_USER, address))
        given = headers.getlist("authorization")
        if not given:
            if self._mode == "required":
                raise Unauthenticated
            return Identity(Caller(None, address))
        token = _bearer_token(given)
        if self._tokens is None:
            raise Unauthenticated
        user, valid_until, claims = await self._tokens.verify(token)
        return Identity(Caller(user, address, claims), valid_until)

    async def close(self) -> None:
        """Stops fetching keys."""
        if self._tokens is not None:
            await self._tokens.close()


def _open_tokens(settings: Settings) -> TokenVerifier | None:
    """Returns None if no key is configured; then no token is valid. Raises ConfigError."""
    if settings.jwt_verify_key is None and settings.jwt_jwks_url is None:
        return None
    from backend.api.tokens import TokenVerifier  # PyJWT and cryptography take 20 ms

    return TokenVerifier(settings)


def _bearer_token(given: Sequence[str]) -> str:
    scheme, _, token = given[0].partition(" ")
    if len(given) > 1 or scheme.lower() != "bearer" or not 0 < len(token.strip()) <= _MAX_TOKEN_CHARS:
        raise Unauthenticated
    return token.strip()


class FrontendKeys:
    """The keys of frontends' servers (CHAT_FRONTEND_API_KEY), which send them as bearer tokens and name the user.

    The user is named in Open WebUI's own header or in `x-chat-user-id`. Without a name the caller is anonymous.
    """

    USER_HEADERS = ("x-chat-user-id", "x-openwebui-user-id")

    def __init__(self, settings: Settings) -> None:
        self._digests = _digests(settings.chat_frontend_api_key)

    def identify(self, headers: Headers, address: str) -> Identity | None:
        """Returns the caller; None if the token is no such key. Raises ValidationFailed for an invalid user id."""
        given = headers.getlist("authorization")
        scheme, _, key = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        if scheme.lower() != "bearer" or not any(_matches(key.strip(), self._digests)):
            return None
        user = next((headers[name] for name in self.USER_HEADERS if headers.get(name)), None)
        if user is not None and _USER.fullmatch(user) is None:
            raise ValidationFailed("A user id has 1 to 255 printable ASCII characters.")
        return Identity(Caller(None if user is None else UserId(user), address))


class ServiceKeys:
    """The keys of services (CHAT_INTERNAL_API_KEY). If none is configured, no key is valid."""

    def __init__(self, settings: Settings) -> None:
        self._digests = _digests(settings.chat_internal_api_key)

    @property
    def configured(self) -> bool:
        return bool(self._digests)

    def valid(self, headers: Headers) -> bool:
        return any(self._matches(headers))

    def is_old(self, headers: Headers) -> bool:
        """Returns True if the given key is valid but not the newest. The first key of the setting is the newest."""
        return any(self._matches(headers)[1:])

    def _matches(self, headers: Headers) -> list[bool]:
        given = headers.getlist("x-api-key")
        return _matches(given[0], self._digests) if len(given) == 1 else []


def _digests(setting: SecretStr | None) -> list[bytes]:
    keys = setting.get_secret_value() if setting is not None else ""
    return [_digest(key.strip()) for key in keys.split(",") if key.strip()]


def _matches(key: str, digests: Sequence[bytes]) -> list[bool]:
    """Compares the key with all digests, so that the duration does not depend on which one matches."""
    if not 0 < len(key) <= _MAX_KEY_CHARS:
        return []
    digest = _digest(key)
    return [hmac.compare_digest(digest, known) for known in digests]


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


class WebhookSecrets:
    """The secrets of CHAT_WEBHOOK_SECRET; there are several during a rotation.

    Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md. A signature
    covers a message's id, time and body, and is valid for five minutes. A replay in that time changes nothing, because
    outcomes are idempotent. Raises ConfigError if a secret is not base64 (with or without `whsec_`).
    """

    def __init__(self, settings: Settings) -> None:
        given = settings.chat_webhook_secret.get_secret_value() if settings.chat_webhook_secret else ""
        try:
            self._hooks = [Webhook(_decoded(secret.strip())) for secret in given.split(",") if secret.strip()]
        except ValueError:
            raise ConfigError("CHAT_WEBHOOK_SECRET: must be base64, like a `whsec_...` secret") from None

    @property
    def configured(self) -> bool:
        return bool(self._hooks)

    def signatures(self, headers: Headers, body: bytes) -> list[str]:
        """Returns the valid signatures of this message, one for each secret that signed it in the last five minutes.

        They are computed here, so a message has the same ones in whatever form a request sends them. An empty list
        means that the message is not signed.
        """
        if any(len(given := headers.getlist(part)) != 1 or len(given[0]) > _MAX_SIGNATURE_CHARS for part in _PARTS):
            return []
        signature = {part: headers[part] for part in _PARTS}
        signers = [hook for hook in self._hooks if _verified(hook, body, signature)]
        if not signers:
            return []
        second = datetime.fromtimestamp(int(float(signature["webhook-timestamp"])), UTC)
        return [hook.sign(signature["webhook-id"], second, body.decode()) for hook in signers]


def _decoded(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix("whsec_"), validate=True)


def _verified(hook: Webhook, body: bytes, signature: dict[str, str]) -> bool:
    try:
        hook.verify(body, signature, json_parse=False)
    except Exception:  # noqa: BLE001 - odd headers and bodies make the library raise ValueError, UnicodeError and others
        return False
    return True
