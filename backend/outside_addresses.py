"""The addresses to which this service may connect when a user names the host: public ones, and allowed networks.

A caller checks the address that a name was resolved to, and connects to that one: a moment later the name may lead
elsewhere.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

_GLOBAL_UNICAST = ip_network("2000::/3")
_NAT64 = ip_network("64:ff9b::/96")
"""IPv6 addresses of IPv4 hosts behind a NAT64 gateway (RFC 6052), which name servers give in networks without IPv4."""
_SPECIAL = [ip_network(special) for special in ("168.63.129.16/32", "192.0.0.0/24", "3fff::/20")]
"""Networks that Python takes for public: Azure's agent on its own machines, protocol assignments, documentation."""


class OutsideAddresses:
    """The public addresses and those of `networks`, a list as the setting WEBHOOK_PRIVATE_NETWORKS has it."""

    def __init__(self, networks: str) -> None:
        self._allowed = [ip_network(network.strip()) for network in networks.split(",") if network.strip()]

    def permit(self, address: str) -> bool:
        """Returns True if connections to the address are permitted. Raises ValueError if it is no IP address."""
        ip = _unwrapped(ip_address(address))
        return _is_public(ip) or any(ip in network for network in self._allowed)


def _unwrapped(ip: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Returns the IPv4 address to which an IPv6 address leads, or else the address itself."""
    if isinstance(ip, IPv4Address):
        return ip
    if ip in _NAT64:
        return IPv4Address(int(ip) & 0xFFFF_FFFF)
    return ip.ipv4_mapped or ip.sixtofour or ip


def _is_public(ip: IPv4Address | IPv6Address) -> bool:
    if ip.version == 6 and ip not in _GLOBAL_UNICAST:
        return False
    special = ip.is_multicast or ip.is_reserved or any(ip in network for network in _SPECIAL)
    return ip.is_global and not special
