"""The file that MCP_SERVERS_FILE names: which servers there are, in the shape that other MCP clients read too."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from backend.errors import ConfigError

SETTING = "MCP_SERVERS_FILE"
MAX_FILE_BYTES, MAX_SERVERS = 1_000_000, 32
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
_VARIABLE = re.compile(r"\$\{([A-Za-z_]\w*)(?::-([^{}]*))?\}")


class _Entry(BaseModel):
    """What both kinds of server have. `timeout` is in seconds a call; `tools` are those offered, None: all."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    disabled: bool = False
    timeout: float | None = Field(None, gt=0, allow_inf_nan=False)
    tools: frozenset[str] | None = None
    operations: frozenset[str] = frozenset()
    idempotent: frozenset[str] = frozenset()


class StdioServer(_Entry):
    """A program that we start. Secrets may stand in `env`, and in `args` although they should not."""

    type: Literal["stdio"] = "stdio"
    command: str = Field(min_length=1)
    args: tuple[str, ...] = Field((), repr=False)
    env: dict[str, SecretStr] = {}
    cwd: Path | None = None

    @field_validator("command", "args", "cwd")
    @classmethod
    def _no_nul(cls, value: Any) -> Any:
        if any("\0" in str(word) for word in (value if isinstance(value, tuple) else (value,))):
            raise ValueError("holds a NUL")
        return value

    @field_validator("env")
    @classmethod
    def _can_be_set(cls, env: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, value in env.items():
            if not name or "=" in name or "\0" in name + value.get_secret_value():
                raise ValueError("a name is empty or holds =, or there is a NUL")
        return env


class HttpServer(_Entry):
    """A server that runs elsewhere, reached over streamable HTTP."""

    type: Literal["http", "streamable-http", "streamableHttp"] = "http"
    url: SecretStr
    headers: dict[str, SecretStr] = {}

    @field_validator("url")
    @classmethod
    def _is_http(cls, url: SecretStr) -> SecretStr:
        if not re.fullmatch(r"https?://[!-~]+", url.get_secret_value()):
            raise ValueError("does not look like https://host/path")
        return url

    @field_validator("headers")
    @classmethod
    def _can_be_sent(cls, headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, value in headers.items():
            if not re.fullmatch(r"[!-9;-~]+", name) or not re.fullmatch(r"[ -~]*", value.get_secret_value()):
                raise ValueError("names and values are printable ASCII, in one line")
        return headers


Server: TypeAlias = StdioServer | HttpServer


def read_servers(file: Path, environment: Mapping[str, str]) -> list[Server]:
    """The servers that are not disabled, in the file's order. `${VAR}` and `${VAR:-else}` in environment variables,
    headers and URLs are taken from `environment`.

    Raises ConfigError: one line with the setting, the file and the place, and no value of the file.
    """
    servers = [_server(file, name, entry, environment) for name, entry in _entries(file).items()]
    return [server for server in servers if not server.disabled]


def _entries(file: Path) -> dict[str, Any]:
    document = _document(file)
    entries = document.get("mcpServers") if isinstance(document, dict) else None
    if not isinstance(entries, dict):
        raise _wrong(file, "mcpServers", "an object of servers by name must stand there")
    if len(entries) > MAX_SERVERS:
        raise _wrong(file, "mcpServers", f"more than {MAX_SERVERS} servers")
    return entries


def _document(file: Path) -> Any:
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{SETTING}: {file} has more than {MAX_FILE_BYTES} bytes")
        return json.loads(file.read_text(encoding="utf-8-sig"), object_pairs_hook=_each_once)
    except OSError as error:
        raise ConfigError(f"{SETTING}: {file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{SETTING}: {file} is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"{SETTING}: {file}, line {error.lineno}, column {error.colno}: not JSON") from None
    except RecursionError:
        raise ConfigError(f"{SETTING}: {file} is nested too deeply") from None
    except _TwiceError as error:
        raise _wrong(file, str(error), "stands twice in one object") from None


class _TwiceError(Exception):
    """A key; the JSON module would let its last value win."""


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _TwiceError(key)
        found[key] = value
    return found


def _server(file: Path, name: str, entry: Any, environment: Mapping[str, str]) -> Server:
    place = f"mcpServers.{name}"
    if not _NAME.fullmatch(name):
        raise _wrong(file, place, "a name has 1 to 32 letters, digits, _ and -, and begins with one of the first two")
    if not isinstance(entry, dict) or ("command" in entry) == ("url" in entry):
        raise _wrong(file, place, "an object with either command or url must stand there")
    if "name" in entry:
        raise _wrong(file, f"{place}.name", "Extra inputs are not permitted")
    filled = _filled(file, place, entry, environment)
    try:
        kind = StdioServer if "command" in entry else HttpServer
        return kind.model_validate({**filled, "name": name})
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join((place, *(str(part) for part in first["loc"])))
        raise _wrong(file, where, first["msg"].removeprefix("Value error, ")) from None


def _filled(file: Path, place: str, entry: dict[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    def fill(value: Any, where: str) -> Any:
        def found(variable: re.Match[str]) -> str:
            name, otherwise = variable.groups()
            if (set_to := environment.get(name) or otherwise) is None:
                raise _wrong(file, where, f"the environment has no {name}")
            return set_to

        return _VARIABLE.sub(found, value) if isinstance(value, str) else value

    filled = dict(entry)
    if "url" in entry:
        filled["url"] = fill(entry["url"], f"{place}.url")
    for member in ("env", "headers"):
        if isinstance(values := entry.get(member), dict):
            filled[member] = {name: fill(value, f"{place}.{member}.{name}") for name, value in values.items()}
    return filled


def _wrong(file: Path, place: str, what: str) -> ConfigError:
    return ConfigError(" ".join(f"{SETTING}: {file}, {place}: {what}".split()))
