"""The types of settings that pydantic does not know: URLs, hosts, origins, ports and durations.

The URLs of the stores are checked by the modules that know their forms (`backend/redis_address.py` and others).

A value that is wrong stops the process at its start, with one line. No message quotes a value, which may hold a secret.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from ipaddress import ip_address, ip_network
from typing import Annotated, TypeAlias
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, Field

_NAME = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?"
)
_ENDS_IN_A_NUMBER = re.compile(r"(.*\.)?([0-9]+|0[xX][0-9a-fA-F]*)\.?")
"""Matches hosts that browsers take for IPv4 addresses. Source: https://url.spec.whatwg.org/#ends-in-a-number-checker
(2026-11).
"""
_NOT_A_URL = "not a valid URL; percent-encode special characters in it"
LONGEST_S = 30 * 86_400
"""Seconds that a duration may have: 30 days."""


def _is_host(text: str) -> bool:
    try:
        return bool(ip_address(text))
    except ValueError:
        return _NAME.fullmatch(text) is not None and _ENDS_IN_A_NUMBER.fullmatch(text) is None


def _check_url(text: str, schemes: Sequence[str]) -> None:
    """Raises ValueError unless the text is a URL with one of the schemes and with a host."""
    starts = " or ".join(f"{scheme}://" for scheme in schemes)
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        raise ValueError(_NOT_A_URL) from None
    if url.scheme not in schemes:
        raise ValueError(f"must begin with {starts}")
    if not text.isprintable() or " " in text or port == 0 or not _is_host(url.hostname or ""):
        raise ValueError(_NOT_A_URL)


def _http_url(text: str) -> str:
    _check_url(text, ("http", "https"))
    return text


def _listening_host(text: str) -> str:
    if not _is_host(text):
        raise ValueError("not a host name and not an IP address")
    return text


def _host(text: str) -> str:
    if not _is_host(text.strip("[]")):
        raise ValueError("not a host name and not an IP address")
    return text


def _each(check: Callable[[str], object]) -> Callable[[str], str]:
    def check_all(setting: str) -> str:
        for part in setting.split(","):
            if part.strip():
                check(part.strip())
        return setting

    return check_all


_hosts = _each(_host)


def _socket_or_hosts(text: str) -> str:
    return text if text.startswith("/") else _hosts(text)


def _origin(text: str) -> None:
    """Any scheme is fine, because apps have schemes of their own (`capacitor://localhost`)."""
    url = urlsplit(text)
    if "*" in text:
        raise ValueError("* is not supported; list each origin, like https://chat.example.com")
    if not url.scheme or "://" not in text:
        raise ValueError("an origin is a scheme and a host, like https://chat.example.com")
    _check_url(text, (url.scheme,))


def _allowed_host(text: str) -> None:
    if text != "*" and not _is_host(text.removeprefix("*.").strip("[]")):
        raise ValueError("list host names without scheme and port, like chat.example.com, *.example.com or *")


_S3_OPTIONS = frozenset({"endpoint", "region", "virtual_hosted"})


def _files_url(text: str) -> str:
    url = urlsplit(text)
    if not text or (url.scheme == "file" and not url.netloc and url.path.startswith("/")):
        return text
    if url.scheme != "s3" or not url.netloc or "@" in url.netloc:
        raise ValueError("must be file:///folder, or s3://bucket/prefix without a key in it")
    try:
        options = parse_qs(url.query, strict_parsing=bool(url.query))
    except ValueError:
        raise ValueError(_NOT_A_URL) from None
    if unknown := sorted(options.keys() - _S3_OPTIONS):
        raise ValueError(f"{unknown[0][:30]} is no option; known are {', '.join(sorted(_S3_OPTIONS))}")
    for endpoint in options.get("endpoint", ()):
        _http_url(endpoint)
    return text


def _network(text: str) -> None:
    try:
        ip_network(text)
    except ValueError:
        raise ValueError("list networks like 10.0.0.0/8 or fd00::/8") from None


HttpUrl: TypeAlias = Annotated[str, AfterValidator(_http_url)]
FilesUrl: TypeAlias = Annotated[str, AfterValidator(_files_url)]
ListeningHost: TypeAlias = Annotated[str, AfterValidator(_listening_host)]
Host: TypeAlias = Annotated[str, AfterValidator(_host)]
Hosts: TypeAlias = Annotated[str, AfterValidator(_hosts)]
SocketOrHosts: TypeAlias = Annotated[str, AfterValidator(_socket_or_hosts)]
OriginList: TypeAlias = Annotated[str, AfterValidator(_each(_origin))]
AllowedHosts: TypeAlias = Annotated[str, AfterValidator(_each(_allowed_host))]
Networks: TypeAlias = Annotated[str, AfterValidator(_each(_network))]
Port: TypeAlias = Annotated[int, Field(ge=1, le=65_535)]
Seconds: TypeAlias = Annotated[float, Field(gt=0, le=LONGEST_S, allow_inf_nan=False)]
Count: TypeAlias = Annotated[int, Field(ge=1, le=2**31 - 1)]


TOKEN_KEY_BYTES = 32


def token_keys(setting: str) -> list[bytes]:
    """Returns the keys of MCP_TOKEN_KEYS, the newest first. Raises ValueError."""
    keys = []
    for part in setting.split(","):
        try:
            key = base64.b64decode(part.strip().replace("-", "+").replace("_", "/"), validate=True)
        except ValueError:
            key = b""
        if len(key) != TOKEN_KEY_BYTES:
            raise ValueError(f"each key must be base64 of {TOKEN_KEY_BYTES} bytes, as `openssl rand -base64 32` makes")
        keys.append(key)
    return keys


_RULE = re.compile(r"(@destructive|(server:)?[A-Za-z0-9_.*?-]+)\s*=\s*(ask|allow|deny)")


def _approval_rules(text: str) -> str:
    if any(_RULE.fullmatch(rule.strip()) is None for rule in text.split(",") if rule.strip()):
        raise ValueError("must list PATTERN=ask, =allow or =deny; see docs/questions.md")
    return text


ApprovalRuleList: TypeAlias = Annotated[str, AfterValidator(_approval_rules)]
"""Rules for TOOL_APPROVAL, which `executor/tools/approval.py` parses."""
