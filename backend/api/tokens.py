"""The JWTs of users, verified with JWT_VERIFY_KEY or with the keys of JWT_JWKS_URL."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeAlias

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from backend.config import Settings
from backend.errors import ConfigError, Unauthenticated
from backend.ids import UserId

if TYPE_CHECKING:
    from backend.api.key_set import KeySet

LEEWAY = 10
"""Seconds of tolerance for clocks: a token is accepted that long after its `exp`."""
_CLAIM = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,512}")
_USER_ID = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,255}")
_TOKEN_ERRORS = (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)
Claims: TypeAlias = tuple[tuple[str, str], ...]
_Key: TypeAlias = RSAPublicKey | EllipticCurvePublicKey | bytes


class TokenVerifier:
    """Verifies tokens by the JWT settings. Raises ConfigError if JWT_VERIFY_KEY is not a key for JWT_ALGORITHM."""

    def __init__(self, settings: Settings) -> None:
        self._algorithm = settings.jwt_algorithm
        self._audience = settings.jwt_audience
        self._issuer = settings.jwt_issuer
        self._kept = settings.claims
        secret = settings.jwt_verify_key
        self._key = _prepare_key(secret.get_secret_value(), self._algorithm) if secret is not None else None
        self._key_set = _open_key_set(settings)

    async def verify(self, token: str) -> tuple[UserId, float, Claims]:
        """Returns the token's user, the Unix time until which it is accepted, and the claims that MCP_CLAIMS names.

        Raises Unauthenticated or Unavailable.
        """
        try:
            return await self._verify(token)
        except _TOKEN_ERRORS:
            raise Unauthenticated from None

    async def close(self) -> None:
        """Stops fetching keys."""
        if self._key_set is not None:
            await self._key_set.close()

    async def _verify(self, token: str) -> tuple[UserId, float, Claims]:
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
        kept = ((name, _text_of(claims[name])) for name in self._kept if name in claims)
        texts = tuple((name, text) for name, text in kept if text is not None)
        return UserId(claims["sub"]), float(claims["exp"]) + LEEWAY, texts

    async def _key_for(self, token: str) -> _Key | jwt.PyJWK | None:
        if self._key_set is None:
            return self._key
        header = jwt.get_unverified_header(token)
        if header.get("alg") != self._algorithm:
            return None
        key_id = header.get("kid")
        return await self._key_set.find(key_id) if key_id is None or isinstance(key_id, str) else None


def _text_of(claim: object) -> str | None:
    """Returns the claim as a text. None for one that is no text, number or bool, or is too long."""
    if isinstance(claim, bool):
        return "true" if claim else "false"
    text = str(claim) if isinstance(claim, int | float) else claim
    return text if isinstance(text, str) and _CLAIM.fullmatch(text) is not None else None


def _open_key_set(settings: Settings) -> KeySet | None:
    if settings.jwt_jwks_url is None:
        return None
    from backend.api.key_set import KeySet  # its HTTP client takes 12 ms

    return KeySet(settings.jwt_jwks_url, settings.jwt_algorithm)


def _prepare_key(text: str, algorithm: str) -> _Key:
    """Returns the secret (HS256) or public key that verifies tokens. Raises ConfigError without quoting the key."""
    wanted = "a secret, not a public key" if algorithm == "HS256" else "a public key in PEM form"
    try:
        key = jwt.get_algorithm_by_name(algorithm).prepare_key(text.replace("\\n", "\n"))
    except (*_TOKEN_ERRORS, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, _Key):
        raise ConfigError(f"JWT_VERIFY_KEY: must be {wanted}, because JWT_ALGORITHM={algorithm} needs it")
    return key
