"""One server of the file that MCP_SERVERS_FILE names, as it is used here."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias
from urllib.parse import unquote, unquote_plus, urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

MAX_SECONDS = 3600.0
"""The longest time limit. A larger number is in milliseconds, as in other clients."""
MAX_INSTRUCTIONS = 4_096
LEAST_SECRET, LEAST_KEY = 4, 16
"""Characters of a text that is hidden as a secret, and of a part of a URL's path that is taken for a key."""
_SECRET_NAME = re.compile(r"key|token|secret|passw|credential|auth", re.IGNORECASE)
_SCHEMES = frozenset({"bearer", "basic", "token", "apikey"})


class Sampling(BaseModel):
    """What a server may ask the model: requests in one call, tokens of one answer, and whether the user is asked."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    calls: int = Field(5, ge=1, le=50)
    tokens: int = Field(1_024, ge=1, le=32_768)
    ask: bool = True


class _Entry(BaseModel):
    """The members of both kinds of server.

    `timeout` is seconds per call, `start_timeout` seconds until the tools are known. `tools` are offered, None offers
    all; `excluded` are not. `per` gives each session or user a connection of its own. `calls` is the number of
    concurrent calls. `instructions` may replace the server's, or hide them (False). The server may ask
    the user in the middle of a call, which then waits up to `elicitation_wait` seconds; 0 forbids it. With `sampling`
    it may ask the model.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    disabled: bool = False
    timeout: float | None = Field(None, gt=0, allow_inf_nan=False)
    start_timeout: float | None = Field(None, gt=0, allow_inf_nan=False)
    per: Literal["session", "user"] | None = None
    calls: int | None = Field(None, ge=1, le=256, strict=True)
    tools: frozenset[str] | None = None
    excluded: frozenset[str] = frozenset()
    operations: frozenset[str] = frozenset()
    idempotent: frozenset[str] = frozenset()
    elicitation_wait: float | None = Field(None, ge=0, allow_inf_nan=False)
    sampling: Sampling | None = None
    instructions: bool | str = Field(True, union_mode="left_to_right")

    @field_validator("sampling", mode="before")
    @classmethod
    def _is_allowed(cls, sampling: Any) -> Any:
        return {True: {}, False: None}[sampling] if isinstance(sampling, bool) else sampling

    @field_validator("timeout", "start_timeout", "elicitation_wait")
    @classmethod
    def _is_in_seconds(cls, seconds: float | None) -> float | None:
        if seconds is not None and seconds > MAX_SECONDS:
            raise ValueError(f"must be seconds, at most {MAX_SECONDS:g}; this seems to be milliseconds")
        return seconds

    @property
    def wait(self) -> float:
        """Seconds that a call may wait for the user; 0 if the server may not ask."""
        return self.elicitation_wait or 0

    @property
    def secrets(self) -> list[str]:
        """Texts that neither the model nor the page nor the log may show in what the server says."""
        raise NotImplementedError

    def offers(self, tool: str) -> bool:
        return (self.tools is None or tool in self.tools) and tool not in self.excluded


class StdioServer(_Entry):
    """A program that the executor starts. `env` may hold secrets; so may `args`, although they should not be there.

    `roots` are the folders that it gets when it asks; True: the folder in which it works. Servers may use no others
    then.
    """

    type: Literal["stdio"] = "stdio"
    command: str = Field(min_length=1)
    args: tuple[str, ...] = Field((), repr=False)
    env: dict[str, SecretStr] = {}
    cwd: Path | None = None
    roots: bool | tuple[Path, ...] = Field(False, union_mode="left_to_right")

    def roots_in(self, folder: Path) -> list[Path]:
        """Returns the folders that the server may take for its own; none if it does not ask for them."""
        if isinstance(self.roots, bool):
            return [self.cwd or folder] if self.roots else []
        return list(self.roots)

    @property
    def secrets(self) -> list[str]:
        """The variables with the name of a secret. The model needs others, such as the folder of a server."""
        return [value.get_secret_value() for name, value in self.env.items() if _SECRET_NAME.search(name)]

    @property
    def hidden_in_log(self) -> list[str]:
        return [*(value.get_secret_value() for value in self.env.values()), *self.args]

    @field_validator("command", "args", "cwd")
    @classmethod
    def _no_nul(cls, value: Any) -> Any:
        if any("\0" in str(word) for word in (value if isinstance(value, tuple) else (value,))):
            raise ValueError("must not contain NUL")
        return value

    @field_validator("env")
    @classmethod
    def _can_be_set(cls, env: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, value in env.items():
            if not name or "=" in name or "\0" in name + value.get_secret_value():
                raise ValueError("names must not be empty or contain =, and nothing may contain NUL")
        return env


SUBJECT = "sub"
"""The claim that is the user's id."""


class OAuth(BaseModel):
    """Each user signs in at the server. Without `client_id`, this service registers itself there.

    Asks for `scopes`; without them, for those that the server names. `private`: its sign-in server may be in a private
    network. `issuer` is the only sign-in server that may be used. Without it, `client_secret` is sent to none but the
    host of the tool server itself: a tool server that is taken over could name another one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    client_id: str | None = Field(None, min_length=1, pattern=r"^[ -~]+$")
    client_secret: SecretStr | None = None
    issuer: str | None = Field(None, pattern=r"^https?://[!-~]+$")
    scopes: tuple[Annotated[str, Field(pattern=r"^[!#-\[\]-~]+$")], ...] = ()
    private: bool = Field(False, strict=True)

    @field_validator("client_secret")
    @classmethod
    def _has_id(cls, secret: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if secret is not None and info.data.get("client_id") is None:
            raise ValueError("needs client_id beside it")
        return secret


class HttpServer(_Entry):
    """A server elsewhere that is reached over streamable HTTP. With `auth`, each user signs in there.

    `claim_headers` are those with claims of the caller's token: texts, with the name of a claim at every second place.
    """

    type: Literal["http", "streamable-http", "streamableHttp"] = "http"
    url: SecretStr
    headers: dict[str, SecretStr] = {}
    claim_headers: dict[str, tuple[str, ...]] = {}
    auth: OAuth | None = None

    @property
    def claims(self) -> frozenset[str]:
        """The claims that the server is sent."""
        return frozenset(name for parts in self.claim_headers.values() for name in parts[1::2])

    @property
    def secrets(self) -> list[str]:
        """The URL and the headers, and each part of them that a server may repeat alone."""
        url = self.url.get_secret_value()
        values = [value.get_secret_value() for value in self.headers.values()]
        if self.auth is not None and self.auth.client_secret is not None:
            values.append(self.auth.client_secret.get_secret_value())
        around = [text for parts in self.claim_headers.values() for text in parts[::2]]
        words = [word for value in (*values, *around) for word in value.split() if word.lower() not in _SCHEMES]
        return [secret for secret in (url, *values, *words, *_secrets_in(url)) if len(secret) >= LEAST_SECRET]

    @field_validator("url")
    @classmethod
    def _is_http(cls, url: SecretStr) -> SecretStr:
        if not re.fullmatch(r"https?://[!-~]+", url.get_secret_value()):
            raise ValueError("must be a URL like https://host/path")
        return url

    @field_validator("auth", mode="before")
    @classmethod
    def _is_oauth(cls, auth: Any) -> Any:
        if auth == "oauth":
            return {}
        if isinstance(auth, str | bool):
            raise ValueError('must be "oauth" or an object')  # noqa: TRY004 - pydantic wants a ValueError
        return auth

    @model_validator(mode="before")
    @classmethod
    def _belongs_to_users(cls, entry: Any) -> Any:
        """A server that knows users has a connection for each."""
        knows = isinstance(entry, dict) and (entry.get("auth") is not None or bool(entry.get("claim_headers")))
        return {"per": "user", **entry} if knows else entry

    @model_validator(mode="after")
    def _has_one_login(self) -> Self:
        if self.auth is not None and any(name.lower() == "authorization" for name in self.headers):
            raise ValueError("headers.Authorization and auth exclude each other")
        if self.auth is not None and self.claim_headers:
            raise ValueError("headers with claims and auth exclude each other")
        if (self.auth is not None or self.claim_headers) and self.per != "user":
            raise ValueError('per must be "user" for a server that knows users')
        return self

    @field_validator("claim_headers")
    @classmethod
    def _can_be_filled(cls, headers: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for name, parts in headers.items():
            if not re.fullmatch(r"[!-9;-~]+", name) or not all(re.fullmatch(r"[ -~]*", text) for text in parts[::2]):
                raise ValueError("names and values must be printable ASCII on one line")
            if not all(re.fullmatch(r"[A-Za-z0-9_.:/-]{1,100}", claim) for claim in parts[1::2]):
                raise ValueError("a claim is named by letters, digits and _.:/-")
        return headers

    @field_validator("headers")
    @classmethod
    def _can_be_sent(cls, headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, value in headers.items():
            if not re.fullmatch(r"[!-9;-~]+", name) or not re.fullmatch(r"[ -~]*", value.get_secret_value()):
                raise ValueError("names and values must be printable ASCII on one line")
        return headers


def _secrets_in(url: str) -> Iterator[str]:
    """Yields the password, the values of the query, and the parts of the path that may be keys; also decoded."""
    parts = urlsplit(url)
    query = [pair.partition("=")[2] or pair for pair in parts.query.split("&")]
    keys = [part for part in parts.path.split("/") if len(part) >= LEAST_KEY]
    user, _, password = parts.netloc.rpartition("@")[0].partition(":")
    if password:  # httpx sends both as this header
        yield b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()
    for secret in (password, *query, *keys, parts.fragment):
        yield from {secret, unquote(secret), unquote_plus(secret)}


Server: TypeAlias = StdioServer | HttpServer
