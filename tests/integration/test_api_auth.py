"""Who may: tokens in every broken form, service keys, and one caller's objects against another's."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from starlette.datastructures import Headers

from backend.api.auth import Authenticator, ServiceKeys
from backend.api.server import build_server
from backend.api.tokens import LEEWAY
from backend.config import Settings
from backend.errors import ConfigError, Unauthenticated, Unavailable
from tests.integration.agents import an_agent
from tests.integration.api_house import (
    JWT_KEY,
    LIMIT,
    SERVICE_KEY,
    ApiHouse,
    api_house,
    bearer,
    new_id,
    new_user,
    token,
)


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[ApiHouse]:
    changes = {"jwt_audience": "chat", "jwt_issuer": "https://issuer.example"}
    async with api_house(postgres_dsn, redis_dsn, executor=False, auth_mode="required", **changes) as house:
        yield house


RIGHT: dict[str, Any] = {"aud": "chat", "iss": "https://issuer.example"}


def unsigned(claims: dict[str, Any], **header: Any) -> str:
    def part(members: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(members).encode()).rstrip(b"=").decode()

    return f"{part({'typ': 'JWT', **header})}.{part(claims)}."


CLAIMS = {"sub": "mallory", "exp": int(time.time()) + 600, **RIGHT}
BROKEN = {
    "nothing": "",
    "no scheme": token("u", **RIGHT),
    "basic": "Basic dTpw",
    "empty": "Bearer",
    "garbage": "Bearer garbage",
    "not base64": "Bearer a.b.c",
    "expired": f"Bearer {token('u', lives=-LEEWAY - 5, **RIGHT)}",
    "not yet": f"Bearer {token('u', nbf=int(time.time()) + 600, **RIGHT)}",
    "other key": f"Bearer {token('u', key='another-secret-0123456789-0123456789', **RIGHT)}",
    "other algorithm": f"Bearer {token('u', algorithm='HS512', key=JWT_KEY * 2, **RIGHT)}",
    "none": f"Bearer {unsigned(CLAIMS, alg='none')}",
    "None": f"Bearer {unsigned(CLAIMS, alg='None')}",
    "unknown crit": f"Bearer {jwt.encode(CLAIMS, JWT_KEY, headers={'crit': ['x'], 'x': 1})}",
    "other audience": f"Bearer {token('u', **{**RIGHT, 'aud': 'other'})}",
    "no audience": f"Bearer {token('u', **{**RIGHT, 'aud': None})}",
    "other issuer": f"Bearer {token('u', **{**RIGHT, 'iss': 'https://mallory.example'})}",
    "no exp": f"Bearer {token('u', exp=None, **RIGHT)}",
    "no sub": f"Bearer {token('u', sub=None, **RIGHT)}",
    "sub is a number": f"Bearer {token('u', sub=1, **RIGHT)}",
    "empty sub": f"Bearer {token('', **RIGHT)}",
    "NUL in sub": f"Bearer {token(chr(0), **RIGHT)}",
    "long sub": f"Bearer {token('u' * 256, **RIGHT)}",
    "endless exp": f"Bearer {token('u', exp=10**400, **RIGHT)}",
    "exp in words": f"Bearer {token('u', exp='soon', **RIGHT)}",
    "huge": f"Bearer {'x' * 20_000}",
}


@pytest.mark.parametrize("authorization", BROKEN.values(), ids=BROKEN.keys())
async def test_a_broken_token_gets_the_one_401(api: ApiHouse, authorization: str) -> None:
    headers = {"authorization": authorization} if authorization else {}
    for method, path in (("GET", "/api/chat/sessions"), ("POST", "/api/chat"), ("GET", f"/api/chat/{new_id()}/stream")):
        answer = await api.http.request(method, path, headers=headers)
        assert answer.status_code == 401, answer.text
        assert answer.headers["www-authenticate"] == "Bearer"
        body = answer.json()
        assert body.pop("request_id")
        assert body == {
            "type": "urn:copilot:problem:unauthenticated",
            "title": "Unauthorized",
            "status": 401,
            "code": "unauthenticated",
            "detail": "A valid bearer token is needed.",
        }


async def test_a_right_token_is_taken_and_two_are_not(api: ApiHouse) -> None:
    good = bearer("someone", **RIGHT)
    assert (await api.http.get("/api/chat/sessions", headers=good)).status_code == 200
    twice = [("authorization", good["authorization"])] * 2
    assert (await api.http.get("/api/chat/sessions", headers=twice)).status_code == 401
    in_url = await api.http.get("/api/chat/sessions", params={"access_token": good["authorization"]})
    assert in_url.status_code == 401


async def test_health_metrics_and_schemas_need_no_token(api: ApiHouse) -> None:
    for path in ("health", "health/live", "health/ready", "config/ttl", "schema/tool-responses", "openapi.json"):
        assert (await api.http.get(f"/api/chat/{path}")).status_code == 200, path
    assert (await api.http.get("/metrics")).status_code == 200
    assert (await api.http.get("/")).status_code == 200


def pem_of(key: Any) -> tuple[str, str]:
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private.decode(), public.decode()


def authenticator(**settings: Any) -> Authenticator:
    return Authenticator(Settings(**settings))


async def user_of(who: Authenticator, given: str) -> str | None:
    identity = await who.identify(Headers({"authorization": f"Bearer {given}"}), "127.0.0.1")
    return identity.caller.user_id


async def test_a_public_key_is_never_a_secret() -> None:
    private, public = pem_of(rsa.generate_private_key(65537, 2048))
    who = authenticator(jwt_verify_key=public, jwt_algorithm="RS256")
    assert await user_of(who, token("rita", key=private, algorithm="RS256")) == "rita"
    header, claims = unsigned(CLAIMS, alg="HS256").split(".")[:2]
    import hashlib
    import hmac

    forged = hmac.new(public.encode(), f"{header}.{claims}".encode(), hashlib.sha256).digest()
    signature = base64.urlsafe_b64encode(forged).rstrip(b"=").decode()
    with pytest.raises(Unauthenticated):
        await user_of(who, f"{header}.{claims}.{signature}")


RSA_PEM, EC_PEM = (
    pem_of(key) for key in (rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1()))
)


@pytest.mark.parametrize(
    ("algorithm", "key"),
    [
        ("RS256", "a-secret-that-is-no-public-key"),
        ("RS256", RSA_PEM[0]),
        ("RS256", EC_PEM[1]),
        ("RS256", RSA_PEM[1].replace("A", "", 9)),
        ("ES256", "a-secret-that-is-no-public-key"),
        ("ES256", EC_PEM[0]),
        ("ES256", RSA_PEM[1]),
        ("HS256", RSA_PEM[1]),
    ],
)
def test_a_server_does_not_start_with_a_key_that_its_algorithm_cannot_use(algorithm: str, key: str) -> None:
    settings = Settings(jwt_verify_key=key, jwt_algorithm=algorithm)
    with pytest.raises(ConfigError, match=rf"^JWT_VERIFY_KEY: [^\n]+ JWT_ALGORITHM={algorithm} needs it$") as refused:
        build_server(settings)
    assert key not in str(refused.value)


async def test_a_public_key_may_stand_on_one_line() -> None:
    who = authenticator(jwt_verify_key=EC_PEM[1].replace("\n", "\\n"), jwt_algorithm="ES256")
    assert await user_of(who, token("emmy", key=EC_PEM[0], algorithm="ES256")) == "emmy"


@asynccontextmanager
async def key_server(document: dict[str, Any]) -> AsyncIterator[tuple[str, list[int]]]:
    """Serves a key set over HTTP; the list has an entry for every time it was asked, and its status."""
    asked: list[int] = []
    document.setdefault("status", 200)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps({"keys": document["keys"]}).encode()
        asked.append(document["status"])
        head = f"HTTP/1.1 {document['status']} X\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys", asked


def jwk_of(key: Any, kid: str) -> dict[str, Any]:
    return {
        **jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True),
        "kid": kid,
        "use": "sig",
        "alg": "ES256",
    }


async def test_a_key_set_is_fetched_once_and_again_for_an_unknown_key_but_not_always() -> None:
    first, other = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    async with key_server({"keys": [jwk_of(first, "one")]}) as (url, asked):
        who = authenticator(jwt_jwks_url=url, jwt_algorithm="ES256")

        def signed(key: Any, **header: Any) -> str:
            return jwt.encode({"sub": "eve", "exp": time.time() + 60}, pem_of(key)[0], "ES256", headers=header)

        for _ in range(3):
            assert await user_of(who, signed(first, kid="one")) == "eve"
        assert await user_of(who, signed(first)) == "eve"
        assert len(asked) == 1
        for kid in ("two", "three", "four"):
            with pytest.raises(Unauthenticated):
                await user_of(who, signed(other, kid=kid))
        with pytest.raises(Unauthenticated):
            await user_of(who, signed(other, kid="one"))
        with pytest.raises(Unauthenticated):
            await user_of(who, unsigned(CLAIMS, alg="none", kid="one"))
        assert len(asked) == 1


async def test_without_its_key_set_nobody_is_let_in() -> None:
    async with key_server({"keys": [], "status": 500}) as (url, _):
        who = authenticator(jwt_jwks_url=url, jwt_algorithm="ES256")
        key = pem_of(ec.generate_private_key(ec.SECP256R1()))[0]
        with pytest.raises(Unavailable):
            await user_of(who, jwt.encode({"sub": "eve", "exp": time.time() + 60}, key, "ES256"))


async def test_without_a_key_a_token_is_refused_and_no_token_is_anonymous() -> None:
    who = authenticator()
    assert (await who.identify(Headers(), "192.0.2.1")).caller.quota_key == "addr:192.0.2.1"
    with pytest.raises(Unauthenticated):
        await user_of(who, token("u"))
    assert await user_of(authenticator(auth_mode="none"), "whatever") == "local"


def test_service_keys_fail_closed() -> None:
    def keys(configured: str | None) -> ServiceKeys:
        return ServiceKeys(Settings(chat_internal_api_key=configured))

    both = keys("the-first-key-of-ours, the-second-key-of-ours")
    assert both.valid(Headers({"x-api-key": "the-first-key-of-ours"}))
    assert both.valid(Headers({"x-api-key": "the-second-key-of-ours"}))
    for given in (
        "",
        " ",
        "the-first-key-of-our",
        "the-first-key-of-ours, the-second-key-of-ours",
        "кл",
        "x" * 100_000,
    ):
        assert not both.valid(Headers(raw=[(b"x-api-key", given.encode())]))
    assert not both.valid(Headers(raw=[(b"x-api-key", b"the-first-key-of-ours")] * 2))
    assert not both.valid(Headers())
    assert not keys(None).valid(Headers({"x-api-key": ""}))


# --- whose is it? -------------------------------------------------------------------------------------------------

BODIES = {
    ("post", "/api/chat/sessions/{session_id}/stream"): {"message": "x"},
    ("patch", "/api/chat/sessions/{session_id}"): {"title": "mine now"},
}
NOT_FOUND = {
    "task_id": "task_not_found",
    "session_id": "session_not_found",
    "agent_id": "agent_not_found",
}
NOT_OBJECTS = {"/api/chat/sessions", "/api/chat"}
FOR_SERVICES = "/api/chat/operations/"


async def test_nobody_reaches_what_is_anothers_by_any_operation(postgres_dsn: str, redis_dsn: str) -> None:
    async with api_house(postgres_dsn, redis_dsn) as api:
        user = new_user()
        owner, thief = api.as_user(user), api.as_user()
        session = await api.new_session(owner)
        task = (await api.say(session, "secret words", owner)).chunks[0]["messageId"].removeprefix("msg_")
        async with api.house.database.connection() as c:
            agent = (await an_agent(c, user, description="secret words")).agent.id
        document = (await api.http.get("/api/chat/openapi.json")).json()
        operations = [
            (method, path)
            for path, methods in document["paths"].items()
            for method in methods
            if "{" in path and path not in NOT_OBJECTS and not path.startswith(FOR_SERVICES)
        ]
        assert len(operations) >= 14
        strangers = [thief, {}, {"x-api-key": "a-service-key-of-the-tests-1"}]
        for method, path in operations:
            kind = next(code for name, code in NOT_FOUND.items() if f"{{{name}}}" in path)
            body = BODIES.get((method, path))
            nowhere = "00000000-0000-4000-8000-000000000000"
            there = path.format(session_id=session, task_id=task, agent_id=agent, version=1)
            random = path.format(session_id=new_id(), task_id=nowhere, agent_id=nowhere, version=1)
            for headers in strangers:
                foreign = await api.http.request(method, there, headers=headers, json=body)
                missing = await api.http.request(method, random, headers=headers, json=body)
                assert foreign.status_code == missing.status_code, (method, path)
                assert "secret" not in foreign.text
                if method == "get" and path.endswith("{session_id}/stream"):
                    assert foreign.status_code == 204
                elif path.endswith("assign-user") and "authorization" not in headers:
                    assert foreign.status_code == 401
                else:
                    assert (foreign.status_code, foreign.json()["code"]) == (404, kind), (method, path)
                    without_id = [{**one.json(), "request_id": ""} for one in (foreign, missing)]
                    assert without_id[0] == without_id[1]
            expired = await api.http.request(method, there, headers=bearer("x", lives=-60), json=body)
            assert expired.status_code == 401
        chat = {"id": session, "messages": [{"id": "m", "role": "user", "parts": [{"type": "text", "text": "x"}]}]}
        for trigger in ("submit-message", "regenerate-message"):
            stolen = await api.http.post("/api/chat", json={**chat, "trigger": trigger}, headers=thief)
            assert (stolen.status_code, stolen.json()["code"]) == (404, "session_not_found")
        mine = (await api.http.get(f"/api/chat/sessions/{session}", headers=owner)).json()
        assert len(mine["messages"]) == 2
        assert (await api.http.get(f"/api/library/agents/{agent}", headers=owner)).status_code == 200


async def test_a_service_writes_notes_into_anybodys_session_with_its_key_alone(
    api: ApiHouse,
) -> None:
    """Tokens are required of users here. The turns count to the owner, and a key says nothing in a user's name."""
    key, owner = {"x-api-key": SERVICE_KEY}, bearer("an-owner", **RIGHT)
    session = await api.new_session(owner)
    path, note = f"/api/chat/sessions/{session}/stream", {"message": "a note", "is_user_message": False}
    async with asyncio.timeout(LIMIT), api.http.stream("POST", path, json=note, headers=key) as answer:
        assert answer.status_code == 200, await answer.aread()
        task = answer.headers["x-resumable-stream-id"]
    async with api.house.database.connection() as c:
        assert await c.fetchval("SELECT quota_key FROM tasks WHERE id = $1", task) == "user:an-owner"
    refused: dict[tuple[int, str], list[tuple[str, Any, dict[str, str]]]] = {
        (401, "unauthenticated"): [
            (path, {"message": "as the user"}, key),
            (path, note, {"x-api-key": "wrong"}),
            (path, note, {**key, "authorization": "Bearer broken"}),
        ],
        (403, "forbidden"): [(path, note, owner)],
        (404, "session_not_found"): [
            (path.replace(session, new_id()), note, key),
            (path, {"message": "as another"}, {**key, **bearer("another", **RIGHT)}),
        ],
    }
    for (status, code), requests in refused.items():
        for where, body, headers in requests:
            answer = await api.http.post(where, json=body, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (status, code), (body, list(headers))
    assert (await api.http.get(f"/api/chat/sessions/{session}", headers=key)).status_code == 401
    assert (await api.http.delete(f"/api/chat/sessions/{session}", headers=owner)).status_code == 204
