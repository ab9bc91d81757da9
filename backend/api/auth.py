"""Who asks: bearer tokens of users, keys and signatures of services.

Whatever is wrong with one of them, the answer is the same 401.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from standardwebhooks.webhooks import Webhook
from starlette.datastructures import Headers

from backend.chat.models import Caller
from backend.config import Settings
from backend.errors import ConfigError, Unauthenticated
from backend.ids import UserId

if TYPE_CHECKING:
    from backend.api.tokens import Tokens

LOCAL_USER = UserId("local")
_MAX_TOKEN_CHARS = 8_192
_MAX_KEY_CHARS = 1_024
SIGNATURE = "webhook-signature"
_PARTS = ("webhook-id", "webhook-timestamp", SIGNATURE)
_MAX_SIGNATURE_CHARS = 4_096


@dataclass(frozen=True, slots=True)
class Identity:
    """The caller of a request, and when (Unix time) its token ends; None: never."""

    caller: Caller
    expires_at: float | None = None


class Authenticator:
    """Makes an Identity of a request's headers, as AUTH_MODE and the JWT settings say.

    Raises ConfigError when JWT_VERIFY_KEY is no key for JWT_ALGORITHM.
    """

    def __init__(self, settings: Settings) -> None:
        self._mode = settings.auth_mode
        self._tokens = _open_tokens(settings)

    async def identify(self, headers: Headers, address: str) -> Identity:
        """Raises Unauthenticated: a token is missing and needed, or given and not valid. Raises Unavailable."""
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
        user, taken_until = await self._tokens.verify(token)
        return Identity(Caller(user, address), taken_until)


def _open_tokens(settings: Settings) -> Tokens | None:
    """Returns None when there is no key, so that no token is valid. Raises ConfigError."""
    if settings.jwt_verify_key is None and settings.jwt_jwks_url is None:
        return None
    from backend.api.tokens import Tokens  # PyJWT and cryptography take 20 ms

    return Tokens(settings)


def _bearer_token(given: Sequence[str]) -> str:
    scheme, _, token = given[0].partition(" ")
    if len(given) > 1 or scheme.lower() != "bearer" or not 0 < len(token.strip()) <= _MAX_TOKEN_CHARS:
        raise Unauthenticated
    return token.strip()


class ServiceKeys:
    """The keys of services. Compared by digest, all of them each time; without any configured, nothing is valid."""

    def __init__(self, settings: Settings) -> None:
        keys = settings.chat_internal_api_key.get_secret_value() if settings.chat_internal_api_key else ""
        self._digests = [_digest(key.strip()) for key in keys.split(",") if key.strip()]

    @property
    def configured(self) -> bool:
        return bool(self._digests)

    def valid(self, headers: Headers) -> bool:
        return any(self._matches(headers))

    def is_old(self, headers: Headers) -> bool:
        """Whether the key is one that others are to take the place of: the first of the list is the newest."""
        return any(self._matches(headers)[1:])

    def _matches(self, headers: Headers) -> list[bool]:
        given = headers.getlist("x-api-key")
        if len(given) != 1 or not 0 < len(given[0]) <= _MAX_KEY_CHARS:
            return []
        digest = _digest(given[0])
        return [hmac.compare_digest(digest, known) for known in self._digests]


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


class WebhookSecrets:
    """The secrets of CHAT_WEBHOOK_SECRET, several of them while one takes another's place.

    Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md. A signature
    covers a message's id, its time and its body; a replay within its five minutes changes nothing: outcomes are
    idempotent.
    Raises ConfigError when one is not base64 (with or without `whsec_`), as the standard has it.
    """

    def __init__(self, settings: Settings) -> None:
        given = settings.chat_webhook_secret.get_secret_value() if settings.chat_webhook_secret else ""
        try:
            self._hooks = [Webhook(_decoded(secret.strip())) for secret in given.split(",") if secret.strip()]
        except ValueError:
            raise ConfigError("CHAT_WEBHOOK_SECRET: must be base64, as `whsec_...` secrets are") from None

    @property
    def configured(self) -> bool:
        return bool(self._hooks)

    def signed(self, headers: Headers, body: bytes) -> bool:
        """Whether one of the secrets has signed this message, not more than five minutes ago."""
        if any(len(given := headers.getlist(part)) != 1 or len(given[0]) > _MAX_SIGNATURE_CHARS for part in _PARTS):
            return False
        signature = {part: headers[part] for part in _PARTS}
        verdicts = [_verified(hook, body, signature) for hook in self._hooks]
        return any(verdicts)


def _decoded(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix("whsec_"), validate=True)


def _verified(hook: Webhook, body: bytes, signature: dict[str, str]) -> bool:
    try:
        hook.verify(body, signature, json_parse=False)
    except Exception:  # noqa: BLE001 - the library raises what it likes at odd headers and bodies (ValueError, UnicodeError, ...)
        return False
    return True
