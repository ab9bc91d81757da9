"""Values of sign-ins at tool servers: their encryption, and the addresses that are asked."""

from __future__ import annotations

import base64

import pytest
from mcp.shared.auth import OAuthMetadata
from pydantic import SecretStr

from backend.chat.oauth.outside import open_outside_client
from backend.chat.oauth.sealing import Seal, Unreadable
from backend.chat.oauth.token_endpoint import exchange
from backend.chat.oauth.values import AuthorizationServer, NotReached, OAuthTokens, SignIn, grant_from_json, grant_json
from backend.config import load_settings
from backend.errors import ConfigError
from executor.mcp.oauth.challenge import Challenge, challenge_of
from executor.mcp.oauth.discovery import SignInImpossible, check_issuer, is_private, scopes_to_ask
from executor.mcp.server_entry import HttpServer, OAuth
from tests.servers.ports import free_port

OLD, NEW = (base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2))
AUTHORITY = AuthorizationServer(
    "https://s/mcp", "https://s/mcp", "https://a", "https://a/authorize", "https://a/token", "me"
)


def seal(*keys: str) -> Seal:
    made = Seal.of(SecretStr(",".join(keys)))
    assert made is not None
    return made


def test_a_sealed_value_is_opened_with_any_key_and_only_in_its_place() -> None:
    value = grant_json(AUTHORITY, OAuthTokens("access", "refresh", "read", 60))
    sealed = seal(OLD).seal(value, "here")
    assert b"refresh" not in sealed
    assert grant_from_json(seal(NEW, OLD).open(sealed, "here")) == (
        AUTHORITY,
        OAuthTokens("access", "refresh", "read", 60),
    )
    assert seal(OLD).seal(value, "here") != sealed
    changed = sealed[:-1] + bytes([sealed[-1] ^ 1])
    for keys, given, place in (
        ((NEW,), sealed, "here"), ((OLD,), sealed, "there"), ((OLD,), changed, "here"), ((OLD,), b"", "here"),
    ):  # fmt: skip
        with pytest.raises(Unreadable):
            seal(*keys).open(given, place)


def test_a_sign_in_is_stored_and_read() -> None:
    sign_in = SignIn(AUTHORITY, "https://here/link", "read write", "verifier")
    assert SignIn.from_json(sign_in.as_json()) == sign_in


def test_what_a_renewal_does_not_tell_stays() -> None:
    assert OAuthTokens("a", "r", "read").renewed_by(OAuthTokens("b")) == OAuthTokens("b", "r", "read")
    assert OAuthTokens("a", "r", "read").renewed_by(OAuthTokens("b", "s", "write", 5)) == OAuthTokens(
        "b", "s", "write", 5
    )


@pytest.mark.parametrize("keys", ["short", OLD + ",", base64.b64encode(b"x" * 31).decode(), "é" * 44])
def test_a_wrong_key_stops_the_start_and_is_not_quoted(keys: str) -> None:
    with pytest.raises(ConfigError, match=r"^MCP_TOKEN_KEYS: each key must be base64 of 32 bytes") as wrong:
        load_settings(files=(), mcp_token_keys=keys)
    assert keys not in str(wrong.value)


@pytest.mark.parametrize(
    ("url", "auth", "expected"),
    [
        ("http://127.0.0.1:9/mcp", "oauth", True),
        ("http://[::1]/mcp", "oauth", True),
        ("http://10.1.2.3/mcp", "oauth", True),
        ("http://crm:8000/mcp", "oauth", True),
        ("http://crm.internal./mcp", "oauth", True),
        ("https://crm.example.com/mcp", "oauth", False),
        ("https://8.8.8.8/mcp", "oauth", False),
        ("https://local.example.com/mcp", "oauth", False),
        ("https://crm.example.com/mcp", {"private": True}, True),
    ],
)
def test_the_file_decides_whether_a_sign_in_may_be_in_a_private_network(url: str, auth: object, expected: bool) -> None:
    assert is_private(HttpServer.model_validate({"name": "x", "url": url, "auth": auth})) is expected


async def test_private_addresses_and_plain_http_are_not_asked() -> None:
    port = free_port()
    async with open_outside_client(private=False) as client:
        for url in (f"https://127.0.0.1:{port}/", f"https://localhost:{port}/", "https://[::ffff:10.0.0.1]/"):
            with pytest.raises(NotReached, match="private"):
                await client.get(url)
        with pytest.raises(NotReached, match="https"):
            await client.get("http://example.com/")
        for odd in ("https://[x", "https://a:b/", "https:///x"):
            with pytest.raises(NotReached):
                await client.get(odd)
    async with open_outside_client(private=True) as client:
        for url in ("http://169.254.169.254/latest/", "http://[fe80::1]/", "http://[::ffff:169.254.169.254]/"):
            with pytest.raises(NotReached, match="private"):
                await client.get(url)
    with pytest.raises(NotReached, match="https"):
        await exchange(AuthorizationServer(*["http://a"] * 6), "code", "verifier", "http://here")


@pytest.mark.parametrize(
    ("status", "header", "expected"),
    [
        (401, "", Challenge()),
        (401, 'Bearer resource_metadata="https://s/m", scope="a b"', Challenge("https://s/m", "a b")),
        (403, 'Bearer error="insufficient_scope", scope="c"', Challenge("", "c", more=True)),
        (403, 'Bearer error="invalid_token"', None),
        (500, "Bearer", None),
    ],
)
def test_a_refusal_says_whether_a_sign_in_is_wanted(status: int, header: str, expected: Challenge | None) -> None:
    found = challenge_of(status, {"www-authenticate": header})
    assert found == expected
    assert found is None or Challenge.from_json(found.as_json()) == found


def test_scopes_that_cannot_be_asked_for_are_left_out() -> None:
    metadata = OAuthMetadata.model_validate(
        {"issuer": "https://a", "authorization_endpoint": "https://a/a", "token_endpoint": "https://a/t"}
    )
    wanted = scopes_to_ask(OAuth(), Challenge("", 'read a\0b "x" é write ' + "x" * 9_000), None, metadata, "")
    assert wanted == "read write"


@pytest.mark.parametrize(
    ("auth", "issuer", "allowed"),
    [
        ("oauth", "https://login.example", True),
        ({"client_id": "me"}, "https://login.example", True),
        ({"client_id": "me", "client_secret": "s"}, "https://crm.example", True),
        ({"client_id": "me", "client_secret": "s"}, "https://crm.example:8443/tenant", True),
        ({"client_id": "me", "client_secret": "s"}, "https://login.example", False),
        ({"client_id": "me", "client_secret": "s"}, "https://crm.example.login.example", False),
        ({"client_id": "me", "client_secret": "s", "issuer": "https://login.example"}, "https://login.example", True),
        ({"client_id": "me", "client_secret": "s", "issuer": "https://login.example"}, "https://crm.example", False),
        ({"issuer": "https://login.example/a"}, "https://login.example/b", False),
    ],
)
def test_a_client_secret_is_sent_to_the_named_sign_in_server_or_to_the_tool_server_alone(
    auth: object, issuer: str, allowed: bool
) -> None:
    server = HttpServer.model_validate({"name": "crm", "url": "https://crm.example/mcp", "auth": auth})
    if allowed:
        check_issuer(server, issuer)
    else:
        with pytest.raises(SignInImpossible, match=r"auth\.issuer"):
            check_issuer(server, issuer)
