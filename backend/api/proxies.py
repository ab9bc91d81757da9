"""Client addresses behind reverse proxies. Only trusted proxies are believed about the address of their client."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias

from backend.errors import ConfigError

_Address: TypeAlias = IPv4Address | IPv6Address


class TrustedProxies:
    """The addresses and networks of the setting TRUSTED_PROXIES, separated by commas. Raises ConfigError."""

    def __init__(self, setting: str) -> None:
        self._networks = [_parse_network(part.strip()) for part in setting.split(",") if part.strip()]

    def client_of(self, peer: str, forwarded_for: Sequence[str]) -> str:
        """Returns the caller's address: the right-most hop of X-Forwarded-For that is not a trusted proxy.

        `forwarded_for` holds the lines of that header in their order. The caller may have invented the hops further
        left, so they are ignored. If a hop is not an address, the proxy that wrote it counts as the caller.
        """
        client = peer
        hops = [hop.strip() for hop in ",".join(forwarded_for).split(",")] if self._networks else []
        while hops and self._trusts(client):
            address = _parse_hop(hops.pop())
            if address is None:
                break
            client = str(address)
        return client

    def _trusts(self, client: str) -> bool:
        address = _parse_hop(client)
        return address is not None and any(address in network for network in self._networks)


def _parse_network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        raise ConfigError(f"TRUSTED_PROXIES: {text[:50]!r} is no address and no network (like 10.0.0.0/8)") from None


def _parse_hop(text: str) -> _Address | None:
    """Parses `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1` or `[2001:db8::1]:80`. Returns None for anything else.

    An IPv4 address in IPv6 form becomes the IPv4 address.
    """
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
