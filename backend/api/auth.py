"""Who asks: bearer tokens of users, keys and signatures of services.

Whatever is wrong with one of them, the answer is the same 401.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import httpx2
import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from standardwebhooks.webhooks import Webhook
from starlette.datastructures import Headers

from backend.chat.models import Caller, Json
from backend.config import Settings
from backend.errors import ConfigError, Unauthenticated, Unavailable
from backend.ids import UserId

LEEWAY = 10
LOCAL_USER = UserId("local")
_MAX_TOKEN_CHARS = 8_192
_MAX_KEY_CHARS = 1_024
SIGNATURE = "webhook-signature"
_PARTS = ("webhook-id", "webhook-timestamp", SIGNATURE)
_MAX_SIGNATURE_CHARS = 4_096
_JWKS_FRESH_FOR, _JWKS_REFETCH_AFTER, _JWKS_TIMEOUT, _MAX_JWKS_BYTES = 300.0, 10.0, 5.0, 1_000_000
_USER_ID = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,255}")
_NOT_A_TOKEN = (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)
_Key: TypeAlias = RSAPublicKey | EllipticCurvePublicKey | bytes
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Identity:
    """The caller of a request, and when (Unix time) its token ends; None: never."""

    caller: Caller
    expires_at: float | None = None


class KeySet:
    """The public keys behind a JWKS URL: fetched when needed, kept five minutes, asked again for an unknown id."""

    def __init__(self, url: str, algorithm: str) -> None:
        self._url = url
        self._algorithm = algorithm
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._fetched_at = self._tried_at = float("-inf")
        self._turnstile = asyncio.Lock()

    async def find(self, key_id: str | None) -> jwt.PyJWK | None:
        """The key with that id, or the only key when the token names none. Raises Unavailable without any keys."""
        fresh = time.monotonic() - self._fetched_at < _JWKS_FRESH_FOR
        if not fresh or (key_id is not None and key_id not in self._keys):
            await self._refresh()
        if key_id is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(key_id)

    async def _refresh(self) -> None:
        async with self._turnstile:
            now = time.monotonic()
            if now - self._tried_at < _JWKS_REFETCH_AFTER:
                if not self._keys:
                    raise Unavailable
                return
            self._tried_at = now
            try:
                document = await self._fetch()
                keys = {key.key_id: key for key in jwt.PyJWKSet.from_dict(document).keys}
            except (httpx2.HTTPError, *_NOT_A_TOKEN) as error:
                logger.warning("key set not fetched", extra={"why": type(error).__name__})
                if not self._keys:
                    raise Unavailable from None
                return
            self._keys = {id: key for id, key in keys.items() if key.algorithm_name == self._algorithm}
            self._fetched_at = time.monotonic()

    async def _fetch(self) -> Json:
        async with asyncio.timeout(_JWKS_TIMEOUT), httpx2.AsyncClient(timeout=_JWKS_TIMEOUT) as client:
            answer = await client.get(self._url)
            answer.raise_for_status()
            if len(answer.content) > _MAX_JWKS_BYTES:
                raise ValueError("key set too large")
            return answer.json()


class Authenticator:
    """Makes an Identity of a request's headers, as AUTH_MODE and the JWT settings say.

    Raises ConfigError when JWT_VERIFY_KEY is no key for JWT_ALGORITHM.
    """

    def __init__(self, settings: Settings) -> None:
        self._mode = settings.auth_mode
        self._algorithm = settings.jwt_algorithm
        self._audience = settings.jwt_audience
        self._issuer = settings.jwt_issuer
        secret = settings.jwt_verify_key
        self._key = _prepare_key(secret.get_secret_value(), self._algorithm) if secret is not None else None
        url = settings.jwt_jwks_url
        self._key_set = KeySet(url, settings.jwt_algorithm) if url is not None else None

    async def identify(self, headers: Headers, address: str) -> Identity:
        """Raises Unauthenticated: a token is missing and needed, or given and not valid. Raises Unavailable."""
        if self._mode == "none":
            return Identity(Caller(LOCAL_USER, address))
        given = headers.getlist("authorization")
        if not given:
            if self._mode == "required":
                raise Unauthenticated
            return Identity(Caller(None, address))
        try:
            user, expires_at = await self._verify(_bearer_token(given))
        except _NOT_A_TOKEN:
            raise Unauthenticated from None
        return Identity(Caller(user, address), expires_at + LEEWAY)

    async def _verify(self, token: str) -> tuple[UserId, float]:
        key = await self._key_for(token)
        if key is None:
            raise Unauthenticated
        claims = jwt.decode(
            token,
            key,
            algorithms=[self._algorithm],
            audience=self._audience,
            issuer=self._issuer,
            leeway=LEEWAY,
            options={"require": ["exp", "sub"], "verify_aud": self._audience is not None},
        )
        if _USER_ID.fullmatch(claims["sub"]) is None:
            raise Unauthenticated
        return UserId(claims["sub"]), float(claims["exp"])

    async def _key_for(self, token: str) -> _Key | jwt.PyJWK | None:
        if self._key_set is None:
            return self._key
        header = jwt.get_unverified_header(token)
        if header.get("alg") != self._algorithm:
            return None
        key_id = header.get("kid")
        return await self._key_set.find(key_id) if key_id is None or isinstance(key_id, str) else None


def _prepare_key(text: str, algorithm: str) -> _Key:
    """The secret (HS256) or public key that verifies tokens. Raises ConfigError, which does not repeat the key."""
    wanted = "a secret, not a public key" if algorithm == "HS256" else "a public key in PEM form"
    try:
        key = jwt.get_algorithm_by_name(algorithm).prepare_key(text.replace("\\n", "\n"))
    except (*_NOT_A_TOKEN, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, _Key):
        raise ConfigError(f"JWT_VERIFY_KEY: must be {wanted}, as JWT_ALGORITHM={algorithm} needs it")
    return key


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
