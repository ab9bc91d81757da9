"""Parses REDIS_URL, once for every kind of connection."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import unquote, urlsplit

from redis.asyncio.connection import RedisSSLContext, SSLConnection, parse_url
from redis.exceptions import RedisError

from backend.errors import ConfigError

_SCHEMES = {"redis": "redis", "rediss": "rediss", "unix": "unix", "valkey": "redis", "valkeys": "rediss"}
_SENTINEL, _CLUSTER = "+sentinel", "+cluster"
SENTINEL_PORT, CLUSTER_PORT = 26379, 6379
_OURS = frozenset(
    {
        "decode_responses", "encoding", "encoding_errors", "health_check_interval", "legacy_responses",
        "max_connections", "retry_on_timeout", "socket_connect_timeout", "socket_read_size", "socket_timeout",
        "timeout",
    }
)  # fmt: skip
"""Options of redis-py that this product decides by itself; they are ignored, so that shared URLs work."""
_TAKEN = frozenset(
    {"client_name", "connection_class", "db", "host", "password", "path", "port", "protocol", "socket_keepalive",
     "username"}
)  # fmt: skip
_SENTINEL_LOGIN = frozenset({"sentinel_username", "sentinel_password"})
_CERTIFICATES = frozenset(
    {
        "ssl_ca_certs", "ssl_ca_data", "ssl_ca_path", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname",
        "ssl_ciphers", "ssl_exclude_verify_flags", "ssl_include_verify_flags", "ssl_keyfile", "ssl_min_version",
        "ssl_password",
    }
)  # fmt: skip


Place = tuple[str, int]
"""Host and port of a server."""


@dataclass(frozen=True, slots=True)
class Sentinels:
    """The Sentinels that a URL names, the name of their master, and redis-py's arguments of a connection to one."""

    places: tuple[Place, ...]
    service: str
    options: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Seeds:
    """The nodes of a Redis Cluster that a URL names. They know the others."""

    places: tuple[Place, ...]


def parse_redis_url(dsn: str) -> dict[str, Any]:
    """Returns a URL as redis-py's arguments of a connection, with its class as `connection_class` unless it is TCP.

    The arguments of `redis+sentinel://` and `redis+cluster://` have no host and port: a finder finds them for each
    connection. Raises ConfigError, whose message has no part of the login.
    """
    address, _ = _parse(dsn)
    return address


def sentinels_of(dsn: str) -> Sentinels | None:
    """Returns the Sentinels of `redis+sentinel://` or `rediss+sentinel://`. None for other URLs. Raises ConfigError."""
    found = _parse(dsn)[1]
    return found if isinstance(found, Sentinels) else None


def seeds_of(dsn: str) -> Seeds | None:
    """Returns the nodes of `redis+cluster://` or `rediss+cluster://`. None for other URLs. Raises ConfigError."""
    found = _parse(dsn)[1]
    return found if isinstance(found, Seeds) else None


def _parse(dsn: str) -> tuple[dict[str, Any], Sentinels | Seeds | None]:
    scheme, separator, rest = dsn.partition("://")
    by_sentinel, in_cluster = scheme.endswith(_SENTINEL), scheme.endswith(_CLUSTER)
    family = _SCHEMES.get(scheme.removesuffix(_SENTINEL if by_sentinel else _CLUSTER))
    if not separator or family is None or ((by_sentinel or in_cluster) and family == "unix"):
        raise ConfigError(
            "REDIS_URL: must begin with redis://, rediss://, valkey://, valkeys://, unix://, redis+sentinel://, "
            "rediss+sentinel://, redis+cluster:// or rediss+cluster://"
        )
    try:
        if by_sentinel:
            places, service, rest = _without_sentinels(rest)
        elif in_cluster:
            places, rest = _without_seeds(rest)
        elif "," in urlsplit(dsn).netloc.rpartition("@")[2]:
            raise ConfigError(
                "REDIS_URL: names several hosts; name one, or a proxy in front of them, or Sentinels "
                "(redis+sentinel://), or nodes of a cluster (redis+cluster://)"
            )
        address: dict[str, Any] = dict(parse_url(f"{family}://{rest}"))
        database = urlsplit(f"//{rest}").path.replace("/", "")
        if family != "unix" and database and not database.isdecimal():  # redis-py would use database 0
            raise ConfigError("REDIS_URL: the path is the number of a database")
    except ValueError as error:
        about_option = str(error).startswith(("Invalid value for", "Invalid ssl"))
        advice = str(error) if about_option else "cannot be read; percent-encode special characters in it"
        raise ConfigError(f"REDIS_URL: {advice}") from None
    login = {name.removeprefix("sentinel_"): address.pop(name) for name in _SENTINEL_LOGIN & address.keys()}
    address = _checked(address)
    if not by_sentinel:
        if login:
            raise ConfigError("REDIS_URL: the option sentinel_password is for redis+sentinel://")
        if in_cluster and address.pop("db", 0):
            raise ConfigError("REDIS_URL: a cluster has one database, number 0")
        return address, Seeds(places) if in_cluster else None
    tls = {name: value for name, value in address.items() if name in _CERTIFICATES}
    if "connection_class" in address:
        tls["ssl"] = True
    return address, Sentinels(places, service, {**login, **tls, "protocol": 2})


def _without_sentinels(rest: str) -> tuple[tuple[Place, ...], str, str]:
    """Splits `[login@]host[:port],.../service[/db][?options]`. Returns Sentinels, service, and the URL without both."""
    url = urlsplit(f"//{rest}")
    login, at, hosts = url.netloc.rpartition("@")
    service, _, db = url.path.removeprefix("/").partition("/")
    if not service:
        raise ConfigError("REDIS_URL: name the master after the Sentinels: redis+sentinel://host:26379/mymaster/0")
    places = _places(hosts, SENTINEL_PORT, "a Sentinel")
    return places, unquote(service), f"{login}{at}/{db}{'?' if url.query else ''}{url.query}"


def _without_seeds(rest: str) -> tuple[tuple[Place, ...], str]:
    """Splits `[login@]host[:port],...[/0][?options]`. Returns the nodes, and the URL without them."""
    url = urlsplit(f"//{rest}")
    login, at, hosts = url.netloc.rpartition("@")
    return _places(hosts, CLUSTER_PORT, "a node"), f"{login}{at}{url.path}{'?' if url.query else ''}{url.query}"


def _places(hosts: str, port: int, what: str) -> tuple[Place, ...]:
    named = [urlsplit(f"//{host.strip()}") for host in hosts.split(",")]
    places = tuple((one.hostname, one.port or port) for one in named if one.hostname)
    if len(places) < len(named):
        raise ConfigError(f"REDIS_URL: {what} has no host")
    return places


def _checked(address: dict[str, Any]) -> dict[str, Any]:
    address = {name: value for name, value in address.items() if name not in _OURS}
    if unknown := sorted(address.keys() - _TAKEN - _CERTIFICATES):
        raise ConfigError(f"REDIS_URL: the option {unknown[0]} is not known")
    if address.get("connection_class") is not SSLConnection:
        return {name: value for name, value in address.items() if name not in _CERTIFICATES}
    if "ssl_cert_reqs" in address:  # Celery writes CERT_NONE
        address["ssl_cert_reqs"] = address["ssl_cert_reqs"].lower().removeprefix("cert_")
    tls_of(address)
    return address


@lru_cache(maxsize=16)
def place_of_redis(dsn: str) -> str:
    """Returns the host and port, the path of the socket, or the Sentinels or nodes of a cluster, without the login.

    Raises ConfigError.
    """
    address, found = _parse(dsn)
    if found is not None:
        places = ",".join(place_name(host, port) for host, port in found.places)
        return f"{found.service} at {places}" if isinstance(found, Sentinels) else f"cluster at {places}"
    if "path" in address:
        return str(address["path"])
    return place_name(address.get("host", "localhost"), address.get("port", 6379))


def place_name(host: str, port: int) -> str:
    """Returns `host:port`, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def tls_of(address: dict[str, Any]) -> ssl.SSLContext | None:
    """Returns the TLS context of an address, as redis-py makes it; None without TLS. Raises ConfigError."""
    if address.get("connection_class") is not SSLConnection:
        return None
    options: dict[str, Any] = {"cert_reqs": "required", "check_hostname": True}
    options |= {name.removeprefix("ssl_"): address[name] for name in address.keys() & _CERTIFICATES}
    try:
        return RedisSSLContext(**options).get()
    except (OSError, ValueError) as error:  # a file that is missing, or is no certificate
        files = [str(options[name]) for name in ("certfile", "keyfile", "ca_certs", "ca_path") if name in options]
        why = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        raise ConfigError(f"REDIS_URL: certificates cannot be loaded ({', '.join(files)}): {why}") from None
    except RedisError as error:
        raise ConfigError(f"REDIS_URL: {error}") from None
