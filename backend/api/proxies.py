"""Behind proxies the peer of a connection is a proxy. What those that we trust say of their own peers is believed."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias

from backend.errors import ConfigError

_Address: TypeAlias = IPv4Address | IPv6Address


class TrustedProxies:
    """The addresses and networks of TRUSTED_PROXIES, comma-separated. Raises ConfigError."""

    def __init__(self, setting: str) -> None:
        self._networks = [_parse_network(part.strip()) for part in setting.split(",") if part.strip()]

    def client_of(self, peer: str, forwarded_for: Sequence[str]) -> str:
        """The caller's address: the right-most hop of X-Forwarded-For (its header lines, in order) that is no proxy of
        ours. Hops left of it are the caller's own words. A hop that is no address counts to the proxy that wrote it.
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
        raise ConfigError(f"TRUSTED_PROXIES: {text[:50]!r} is no address and no network (10.0.0.0/8)") from None


def _parse_hop(text: str) -> _Address | None:
    """Reads `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`; IPv4 in IPv6 form is the IPv4 address."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
