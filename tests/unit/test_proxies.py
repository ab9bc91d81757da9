"""Tests of the client's address behind proxies."""

from __future__ import annotations

import pytest

from backend.api.proxies import TrustedProxies
from backend.errors import ConfigError

TRUSTED = TrustedProxies("10.0.0.0/8, 192.0.2.7, 2001:db8:1::/48")


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "client"),
    [
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),  # the peer is not a trusted proxy, so its header is ignored
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["1.1.1.1", "198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["1.1.1.1, 198.51.100.1, 192.0.2.7,10.200.0.1"], "198.51.100.1"),
        ("10.0.0.1", ["10.0.0.2, 10.0.0.3"], "10.0.0.2"),
        ("10.0.0.1", ["198.51.100.1, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1, unknown, 10.0.0.5"], "10.0.0.5"),
        ("10.0.0.1", ["198.51.100.1:50000"], "198.51.100.1"),
        ("10.0.0.1", ["[2001:db8:2::1]:443"], "2001:db8:2::1"),
        ("10.0.0.1", ["2001:DB8:2:0::1"], "2001:db8:2::1"),
        ("::ffff:10.0.0.1", ["::ffff:198.51.100.1"], "198.51.100.1"),
        ("2001:db8:1::5", ["198.51.100.1"], "198.51.100.1"),
        ("local", ["198.51.100.1"], "local"),
    ],
)
def test_the_client_is_the_last_hop_that_is_not_a_trusted_proxy(
    peer: str, forwarded_for: list[str], client: str
) -> None:
    assert TRUSTED.client_of(peer, forwarded_for) == client


@pytest.mark.parametrize("setting", ["", " , "])
def test_without_trusted_proxies_the_header_is_ignored(setting: str) -> None:
    assert TrustedProxies(setting).client_of("127.0.0.1", ["198.51.100.1"]) == "127.0.0.1"


@pytest.mark.parametrize("setting", ["proxy.internal", "10.0.0.0/33", "10.0.0.1;10.0.0.2", "*"])
def test_an_invalid_network_stops_the_start_and_is_named(setting: str) -> None:
    with pytest.raises(ConfigError, match=r"^TRUSTED_PROXIES: [^\n]+$"):
        TrustedProxies(f"10.0.0.1,{setting}")
