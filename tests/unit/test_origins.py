"""The hosts that the API answers to, and the pages that may call it without a token."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.datastructures import Headers

from backend.api.origins import Origins
from backend.config import Settings
from backend.errors import ForeignOrigin, HostNotAllowed

LOCAL = {"auth_mode": "none"}
CALL = "/api/chat/sessions"


def origins(**settings: Any) -> Origins:
    return Origins(Settings(**settings))


def answers_to(checks: Origins, *hosts: str, path: str = CALL) -> bool:
    try:
        checks.check_host(path, Headers(raw=[(b"host", host.encode()) for host in hosts]))
    except HostNotAllowed:
        return False
    return True


def takes(checks: Origins, path: str = CALL, **headers: str) -> bool:
    given = {"host": "127.0.0.1:8006"} | {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        checks.check_origin(path, Headers(given))
    except ForeignOrigin:
        return False
    return True


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:8006", "127.1.2.3:1", "localhost", "LOCALHOST:8006", "localhost.:80", "a.localhost",
     "[::1]", "[::1]:8006"],
)  # fmt: skip
def test_without_tokens_the_names_of_this_machine_are_answered(host: str) -> None:
    assert answers_to(origins(**LOCAL), host)


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8006", "127.0.0.1.evil.example", "localhost.evil.example", "evillocalhost", "",
     "192.168.1.5:8006", "[2001:db8::1]:8006", "0.0.0.0:8006", "[::]", "127.0.0.1@evil.example", "[", "x" * 5_000],
)  # fmt: skip
def test_without_tokens_no_other_name_is(host: str) -> None:
    assert not answers_to(origins(**LOCAL), host)
    assert not answers_to(origins(**LOCAL), "127.0.0.1", host)
    assert answers_to(origins(**LOCAL), host, path="/api/chat/health/ready")
    assert answers_to(origins(auth_mode="optional"), host)


def test_more_names_come_from_the_settings() -> None:
    here = origins(
        **LOCAL, host="192.0.2.7", platform_base_url="https://api.example/", frontend_base_url="http://a:1,b://c"
    )
    for host in ("192.0.2.7:1", "api.example", "A:80", "c", "localhost"):
        assert answers_to(here, host), host
    assert not answers_to(here, "x.api.example")
    named = origins(**LOCAL, host="0.0.0.0", allowed_hosts="My-Machine.lan, *.dev.example")
    for host in ("my-machine.lan:8006", "my-machine.lan.", "8006.dev.example", "127.0.0.1"):
        assert answers_to(named, host), host
    for host in ("other.lan", "dev.example", "evildev.example", "0.0.0.0"):
        assert not answers_to(named, host), host
    assert answers_to(origins(**LOCAL, allowed_hosts="*"), "evil.example")
    required = origins(auth_mode="required", jwt_verify_key="x" * 32, allowed_hosts="api.example")
    assert answers_to(required, "api.example")
    assert not answers_to(required, "evil.example")


FOREIGN = [
    {"origin": "http://evil.example"},
    {"origin": "http://127.0.0.1:3000"},
    {"origin": "null"},
    {"sec_fetch_site": "cross-site"},
    {"sec_fetch_site": "same-site", "origin": "http://127.0.0.1:3000"},
    {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"},
    {"origin": "http://evil.example", "sec_fetch_site": "cross-site", "authorization": "x"},
]
OWN = [
    {},
    {"origin": "http://127.0.0.1:8006"},
    {"origin": "https://127.0.0.1:8006"},
    {"sec_fetch_site": "same-origin"},
    {"sec_fetch_site": "none"},
    {"origin": "https://chat.example", "sec_fetch_site": "same-origin"},  # a proxy that passes on another Host
    {"origin": "https://page.example", "sec_fetch_site": "cross-site"},  # FRONTEND_BASE_URL
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_a_call_of_a_foreign_page_is_refused_where_no_token_is_needed(headers: dict[str, str]) -> None:
    assert not takes(origins(**LOCAL), **headers)
    assert takes(origins(**LOCAL), path="/c/0123456789abcdef", **headers)
    assert takes(origins(auth_mode="required", jwt_verify_key="x" * 32), **headers)
    optional = origins(auth_mode="optional")
    assert takes(optional, **headers) == ("authorization" in headers)
    assert takes(optional, **{**headers, "x_api_key": "k"})


@pytest.mark.parametrize("headers", OWN, ids=str)
@pytest.mark.parametrize("mode", ["none", "optional"])
def test_own_pages_and_programs_are_not_refused(headers: dict[str, str], mode: str) -> None:
    assert takes(origins(auth_mode=mode, frontend_base_url="https://page.example/"), **headers)
