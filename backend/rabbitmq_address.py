"""RABBITMQ_URL: one broker, or several nodes of a cluster that are tried one after another."""

from __future__ import annotations

import re

from yarl import URL

from backend.errors import ConfigError

MOST_HOSTS = 20
_SEVERAL = re.compile(r"[,;]\s*(?=amqps?://)")
_CERTIFICATES = {"cacertfile": "cafile", "verify": "no_verify_ssl"}
"""RabbitMQ's names of options about certificates, and those of the library."""


def parse_rabbitmq_url(dsn: str) -> list[URL]:
    """Returns the URLs of all nodes, in their order.

    The nodes are the hosts of one URL (`amqp://user:password@a:5672,b:5672/vhost`), or whole URLs with a comma or
    semicolon between them. Raises ConfigError, whose message has no part of the login.
    """
    nodes = [node for url in _SEVERAL.split(dsn.strip()) for node in _nodes_of(url.strip())]
    if len(nodes) > MOST_HOSTS:
        raise ConfigError(f"RABBITMQ_URL: names more than {MOST_HOSTS} hosts")
    return nodes


def _nodes_of(url: str) -> list[URL]:
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in ("amqp", "amqps"):
        raise ConfigError("RABBITMQ_URL: must begin with amqp:// or amqps://")
    split = re.match(r"([^/?#]*)(.*)", rest, re.DOTALL)
    assert split is not None
    place, path = split.groups()
    login, at, hosts = place.rpartition("@")
    try:
        return [_translated(URL(f"{scheme}://{login}{at}{host.strip()}{path}")) for host in hosts.split(",")]
    except (ValueError, IndexError):  # the message may quote a part of the password; yarl raises the latter, too
        raise ConfigError("RABBITMQ_URL: cannot be read; percent-encode special characters in it") from None


def _translated(url: URL) -> URL:
    """Returns a URL with the options' names that the library knows. Raises ValueError if it has no host or port."""
    if not url.host or url.port == 0:
        raise ValueError
    query = dict(url.query)
    for name, ours in _CERTIFICATES.items():
        if name in query:
            value = query.pop(name)
            query.setdefault(ours, value if name != "verify" else str(int(value == "verify_none")))
    return url.with_query(query)
