"""Which addresses webhooks may reach."""

from __future__ import annotations

import pytest

from backend.outside_addresses import OutsideAddresses

PUBLIC = ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::"]
OTHERS = [
    "127.0.0.1", "10.1.1.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "100.100.100.200",
    "0.0.0.0", "192.0.0.8", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "168.63.129.16",
    "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:0:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::808:808",
    "2002:7f00:1::", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1", "3fff::1", "fc00::1", "fd12::1", "fe80::1",
    "fe80::1%eth0", "fec0::1", "ff02::1",
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_permitted(address: str) -> None:
    assert OutsideAddresses("").permit(address)


@pytest.mark.parametrize("address", OTHERS)
def test_no_other_address_is_permitted_in_any_form(address: str) -> None:
    assert not OutsideAddresses("").permit(address)


def test_networks_of_the_setting_are_permitted_and_no_others() -> None:
    own = OutsideAddresses("127.0.0.0/8, fd00::/8")
    for address in ("127.0.0.1", "::ffff:127.9.9.9", "64:ff9b::7f00:1", "fd12::1", "8.8.8.8"):
        assert own.permit(address), address
    for address in ("10.0.0.1", "169.254.169.254", "::1", "fc00::1"):
        assert not own.permit(address), address
