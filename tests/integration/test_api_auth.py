"""Authentication and ownership: tokens in every broken form, service keys, and objects of other callers."""

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
from fastapi.routing import iter_route_contexts
from starlette.datastructures import Headers

from backend.api.app import create_app
from backend.api.auth import Authenticator, ServiceKeys
from backend.api.key_set import KeySet
from backend.api.server import build_server
from backend.api.tokens import LEEWAY
from backend.chat.store.tool_servers import grants
from backend.config import Settings
from backend.errors import ConfigError, Unauthenticated, Unavailable
from tests.fakes.agent_platform import fake_platform
from tests.integration.agents import an_agent
from tests.integration.running_api import (
    JWT_KEY,
    LIMIT,
    SERVICE_KEY,
    RunningApi,
    bearer,
    new_id,
    new_user,
    running_api,
    token,
)
from tests.integration.test_agent_runs import SCHEMA
from tests.speed import limit


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[RunningApi]:
    changes = {"jwt_audience": "chat", "jwt_issuer": "https://issuer.example"}
    async with running_api(postgres_dsn, redis_dsn, executor=False, auth_mode="required", **changes) as resources:
        yield resources


RIGHT: dict[str, Any] = {"aud": "chat", "iss": "https://issuer.example"}


def unsigned(claims: dict[str, Any], **header: Any) -> str:
    def part(members: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(members).encode()).rstrip(b"=").decode()

    return f"{part({'typ': 'JWT', **header})}.{part(claims)}."


def good_claims() -> dict[str, Any]:
    return {"sub": "mallory", "exp": int(time.time()) + 600, **RIGHT}


def broken() -> dict[str, str]:
    """Made when a test needs them: a run may last longer than a token."""
    claims = good_claims()
    return {
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
        "none": f"Bearer {unsigned(claims, alg='none')}",
        "None": f"Bearer {unsigned(claims, alg='None')}",
        "unknown crit": f"Bearer {jwt.encode(claims, JWT_KEY, headers={'crit': ['x'], 'x': 1})}",
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


@pytest.mark.parametrize("name", broken())
async def test_every_broken_token_gets_the_same_401(api: RunningApi, name: str) -> None:
    authorization = broken()[name]
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
            "detail": "A valid bearer token is required.",
        }


async def test_a_valid_token_is_accepted_and_two_tokens_are_refused(api: RunningApi) -> None:
    good = bearer("someone", **RIGHT)
    assert (await api.http.get("/api/chat/sessions", headers=good)).status_code == 200
    twice = [("authorization", good["authorization"])] * 2
    assert (await api.http.get("/api/chat/sessions", headers=twice)).status_code == 401
    in_url = await api.http.get("/api/chat/sessions", params={"access_token": good["authorization"]})
    assert in_url.status_code == 401


async def test_health_metrics_and_schemas_need_no_token(api: RunningApi) -> None:
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
    header, claims = unsigned(good_claims(), alg="HS256").split(".")[:2]
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
        if "hangs" in document:
            await document["hangs"].wait()
        head = f"HTTP/1.1 {document['status']} X\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys", asked
        finally:
            if "hangs" in document:
                document["hangs"].set()


def jwk_of(key: Any, kid: str) -> dict[str, Any]:
    return {
        **jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True),
        "kid": kid,
        "use": "sig",
        "alg": "ES256",
    }


async def test_a_key_set_is_fetched_once_and_again_for_an_unknown_key_but_not_always(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("backend.api.key_set._MOST_WAIT_S", limit(5.0))  # a first request may take longer than it waits
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
            await user_of(who, unsigned(good_claims(), alg="none", kid="one"))
        assert len(asked) == 1


async def test_without_its_key_set_no_token_is_accepted() -> None:
    async with key_server({"keys": [], "status": 500}) as (url, _):
        who = authenticator(jwt_jwks_url=url, jwt_algorithm="ES256")
        key = pem_of(ec.generate_private_key(ec.SECP256R1()))[0]
        with pytest.raises(Unavailable):
            await user_of(who, jwt.encode({"sub": "eve", "exp": time.time() + 60}, key, "ES256"))


@asynccontextmanager
async def open_key_set(url: str, **seconds: float) -> AsyncIterator[KeySet]:
    keys = KeySet(url, "ES256", **seconds)
    try:
        yield keys
    finally:
        await keys.close()


async def test_a_known_key_does_not_wait_for_a_key_server_that_hangs() -> None:
    """The server hangs until the end of this test. On the build before, each request waited for it, or failed."""
    document: dict[str, Any] = {"keys": [jwk_of(ec.generate_private_key(ec.SECP256R1()), "one")]}
    async with key_server(document) as (url, asked), open_key_set(url, fresh_for=0, refetch_after=0) as keys:
        assert await keys.find("one") is not None
        document["hangs"] = asyncio.Event()
        for _ in range(20):
            assert await keys.find("one") is not None
            await asyncio.sleep(0)
        async with asyncio.timeout(LIMIT):
            while len(asked) < 2:
                await asyncio.sleep(0.01)
        for unknown in ("two", "three"):
            with pytest.raises(Unavailable):
                await keys.find(unknown)
        assert await keys.find("one") is not None
        assert len(asked) == 2
        document["keys"].append(jwk_of(ec.generate_private_key(ec.SECP256R1()), "two"))
        document["hangs"].set()
        async with asyncio.timeout(LIMIT):
            while await found(keys, "two") is None:
                await asyncio.sleep(0.01)


async def found(keys: KeySet, key_id: str) -> jwt.PyJWK | None:
    try:
        return await keys.find(key_id)
    except Unavailable:
        return None


async def test_keys_that_cannot_be_fetched_again_are_used_for_a_bounded_time() -> None:
    document: dict[str, Any] = {"keys": [jwk_of(ec.generate_private_key(ec.SECP256R1()), "one")]}
    async with (
        key_server(document) as (url, _),
        open_key_set(url, fresh_for=0, refetch_after=0) as used,
        open_key_set(url, stale_for=0) as gone,
    ):
        for keys in (used, gone):
            assert await keys.find("one") is not None
        document["status"] = 500
        for _ in range(3):
            assert await used.find("one") is not None
            await asyncio.sleep(0.02)
        with pytest.raises(Unavailable):
            await used.find("two")
        assert await gone.find("one") is None


async def test_a_key_server_that_hangs_or_is_away_gives_a_503(
    postgres_dsn: str, redis_dsn: str, free_port: int
) -> None:
    document: dict[str, Any] = {"keys": [], "hangs": asyncio.Event()}
    private = pem_of(ec.generate_private_key(ec.SECP256R1()))[0]
    signed = jwt.encode({"sub": "eve", "exp": time.time() + 60}, private, "ES256", headers={"kid": "one"})
    async with key_server(document) as (hanging, _):
        for url in (hanging, f"http://127.0.0.1:{free_port}/keys"):
            changes = {"jwt_verify_key": None, "jwt_jwks_url": url, "jwt_algorithm": "ES256"}
            async with running_api(postgres_dsn, redis_dsn, executor=False, **changes) as api:
                answer = await api.http.get("/api/chat/sessions", headers={"authorization": f"Bearer {signed}"})
                assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
                assert int(answer.headers["retry-after"]) > 0


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
    ("post", "/api/chat/sessions/{session_id}/messages/pending"): {"message": "x"},
    ("post", "/api/chat/sessions/{session_id}/leaf"): {"message_id": "m1"},
    ("patch", "/api/chat/sessions/{session_id}"): {"title": "mine now"},
    ("patch", "/api/chat/sessions/{session_id}/title"): {"title": "mine now"},
    ("patch", "/api/chat/sessions/{session_id}/pinned"): {"is_pinned": True},
    ("put", "/api/chat/sessions/{session_id}/messages/{message_id}/feedback"): {"rating": "up"},
    ("patch", "/api/chat/folders/{folder_id}"): {"name": "mine now"},
    ("post", "/api/chat/operations/{operation_id}/answer"): {"answer": "x"},
    ("patch", "/api/chat/webhooks/{webhook_id}"): {"enabled": False},
    ("post", "/api/library/agents/{agent_id}/runs"): {"inputs": {"a": 1, "b": 2}},
    ("post", "/api/library/agents/{agent_id}/schedules"): {"cron": "0 8 * * *", "inputs": {"a": 1, "b": 2}},
    ("patch", "/api/library/schedules/{schedule_id}"): {"paused": True},
    ("put", "/api/library/agents/{agent_id}/publication"): {"version": 1},
}
NOT_FOUND = {
    "task_id": "task_not_found",
    "session_id": "session_not_found",
    "agent_id": "agent_not_found",
    "operation_id": "operation_not_found",
    "webhook_id": "webhook_not_found",
    "file_id": "file_not_found",
    "folder_id": "folder_not_found",
    "server": "connection_not_found",
    "schedule_id": "schedule_not_found",
}
FOR_SERVICES = {f"/api/chat/operations/{{operation_id}}/{what}" for what in ("complete", "progress")}
PUBLIC = {
    "/", "/c/{session_id}", "/s/{share_token}", "/diagrams.html", "/library", "/library/agents/{agent_id}", "/build",
    "/theme.js", "/assets/{name}", "/try", "/try.js", "/try.css", "/favicon.ico", "/metrics", "/health", "/health/live",
    "/health/ready",
    "/api/chat/health", "/api/chat/health/live", "/api/chat/health/ready", "/api/chat/openapi.json",
    "/api/chat/config/ttl", "/api/chat/schema/tool-responses",
    "/api/chat/mcp/sign-in", "/api/chat/mcp/callback", "/api/chat/mcp/client.json",
    "/.well-known/agent-card.json", "/api/chat/a2a/.well-known/agent-card.json",
}  # fmt: skip
"""Routes that show nothing of anybody."""
SIGNED_IN = {
    "/api/chat/sessions/{session_id}/assign-user", "/api/library/schedules/{schedule_id}",
    "/api/library/published/{agent_id}", "/api/library/published/{agent_id}/copy",
}  # fmt: skip
"""Routes that an anonymous caller may not use at all."""
BY_LINK = {"/api/chat/shared/{share_token}"}
"""Routes for everyone who has a secret link (test_api_whole_conversations)."""
OF_THE_CALLER = {
    ("GET", "/api/chat/sessions"), ("POST", "/api/chat/sessions"), ("POST", "/api/chat"), ("GET", "/api/chat/events"),
    ("GET", "/api/chat/transports"), ("GET", "/api/chat/models"),
    ("GET", "/api/library/agents"), ("POST", "/api/library/agents"),
    ("GET", "/api/library/schedules"), ("GET", "/api/library/published"),
    ("GET", "/api/chat/instructions"), ("PUT", "/api/chat/instructions"),
    ("DELETE", "/api/chat/user"), ("GET", "/api/chat/search"),
    ("GET", "/api/chat/webhooks"), ("POST", "/api/chat/webhooks"), ("POST", "/api/chat/ag-ui"),
    ("POST", "/api/chat/files"), ("GET", "/api/chat/folders"), ("POST", "/api/chat/folders"),
    ("POST", "/api/chat/sessions/import"),
    ("POST", "/api/chat/a2a"),
    ("GET", "/api/chat/mcp/connections"),
    ("GET", "/v1/models"), ("GET", "/v1/models/{model}"), ("POST", "/v1/chat/completions"),
}  # fmt: skip
"""Routes without an id of somebody's in their path. Where an id may be in the query or the body, `other_places` sends
one; test_openai_api sends one in a header."""


def other_places(session: str) -> list[tuple[str, str, dict[str, Any] | None]]:
    """Returns the requests that name a session elsewhere than in their path."""
    chat = {"id": session, "messages": [{"id": "m", "role": "user", "parts": [{"type": "text", "text": "x"}]}]}
    return [
        ("GET", f"/api/chat/events?session_id={session}", None),
        ("POST", "/api/chat/sessions", {"id": session}),
        (
            "POST",
            f"/api/chat/sessions/import?id={session}",
            {"format": "copilot-conversation", "version": 1, "messages": []},
        ),
        *[("POST", "/api/chat", {**chat, "trigger": kind}) for kind in ("submit-message", "regenerate-message")],
        ("POST", "/api/chat", {**chat, "messageId": "m"}),
        (
            "POST",
            "/api/chat/ag-ui",
            {"threadId": session, "runId": "r", "messages": [{"role": "user", "content": "x"}]},
        ),
    ]


def routes_of(api: RunningApi) -> set[tuple[str, str]]:
    """Returns every method and path of the application, those that the OpenAPI document does not show too."""
    contexts = iter_route_contexts(api.app.routes)
    return {(method, context.path.replace(":path", "")) for context in contexts for method in context.methods or ()}


async def test_no_route_gives_access_to_objects_of_others(postgres_dsn: str, redis_dsn: str) -> None:
    """A table of all routes, callers and ids. A new route is in it by itself, or fails here."""
    async with (
        fake_platform() as platform,
        running_api(postgres_dsn, redis_dsn, share_links=True, **platform.settings) as api,
    ):
        user = new_user()
        owner, thief = api.as_user(user), api.as_user()
        session = await api.new_session(owner)
        chunks = (await api.say(session, '/tool find_library_agent {"query": "secret words"}', owner)).chunks
        task = chunks[0]["messageId"].removeprefix("msg_")
        call = next(chunk["toolCallId"] for chunk in chunks if chunk["type"] == "tool-output-available")
        async with api.resources.database.connection() as c:
            agent = (await an_agent(c, user, description="secret words", input_schema=SCHEMA)).agent.id
            await grants.save(c, f"user:{user}", "secret", "id", b"sealed", "words", None)
        hook = await api.http.post("/api/chat/webhooks", json={"url": "https://secret.invalid/"}, headers=owner)
        file = await api.http.post("/api/chat/files", content=b"secret words", headers=owner)
        question = {"message": '/tool ask_user {"question": "secret words"}'}
        path = f"/api/chat/sessions/{await api.new_session(owner)}/stream"
        _, asking = await api.read("POST", path, params={"accept": "questions"}, json=question, headers=owner)
        (asked,) = [chunk["output"] for chunk in asking.chunks if chunk["type"] == "tool-output-available"]
        theirs = {"session_id": session, "task_id": task, "agent_id": agent, "operation_id": asked["operation_id"]}
        theirs |= {"tool_call_id": call, "webhook_id": hook.json()["id"], "delivery_id": f"evt_{'0' * 32}"}
        folder = await api.http.post("/api/chat/folders", json={"name": "secret words"}, headers=owner)
        shared = await api.http.put(f"/api/chat/sessions/{session}/share", headers=owner)
        assert shared.status_code == 200, shared.text
        here, inputs = f"/api/library/agents/{agent}", {"a": 1, "b": 2}
        run = await api.http.post(f"{here}/runs", json={"inputs": inputs}, headers=owner)
        plan = {"cron": "0 8 * * *", "name": "secret words", "inputs": inputs}
        schedule = await api.http.post(f"{here}/schedules", json=plan, headers=owner)
        theirs["file_id"], theirs["server"] = file.json()["id"], "secret"
        theirs["folder_id"], theirs["message_id"] = folder.json()["id"], f"msg_{task}"
        theirs["execution_id"], theirs["schedule_id"] = run.json()["execution_id"], schedule.json()["id"]
        theirs["path"] = "secret.txt"
        nowhere = "00000000-0000-4000-8000-000000000000"
        nobodys = {"session_id": new_id(), "task_id": nowhere, "agent_id": nowhere, "operation_id": nowhere}
        nobodys |= {"tool_call_id": call, "webhook_id": nowhere, "delivery_id": f"evt_{'0' * 32}"}
        nobodys["file_id"], nobodys["server"] = nowhere, "nowhere"
        nobodys["folder_id"], nobodys["message_id"] = nowhere, f"msg_{nowhere}"
        nobodys["execution_id"] = nobodys["schedule_id"] = nobodys["path"] = nowhere
        objects = {
            (method, path)
            for method, path in routes_of(api)
            if path not in PUBLIC
            and (method.replace("HEAD", "GET"), path) not in OF_THE_CALLER
            and path not in FOR_SERVICES | BY_LINK
        }
        assert len(objects) >= 18
        for method, path in objects:
            code = next((code for name, code in NOT_FOUND.items() if f"{{{name}}}" in path), None)
            assert code is not None, f"{method} {path} is in no table of this test"
            body = BODIES.get((method.lower(), path))
            for headers in (thief, {}, {"x-api-key": SERVICE_KEY}):
                await _refuses(api, method, path, theirs, nobodys, code, headers, body)
            expired = await api.http.request(
                method, path.format(**theirs, version=1), headers=bearer("x", lives=-60), json=body
            )
            assert expired.status_code == 401
        for method, path, body in other_places(session):
            for headers in (thief, {}):
                foreign = await api.http.request(method, path, json=body, headers=headers)
                assert (foreign.status_code, foreign.json()["code"]) == (404, "session_not_found"), (path, body)
                assert "secret" not in foreign.text
        for path in (
            "/api/chat/sessions",
            "/api/library/agents",
            "/api/chat/webhooks",
            "/api/chat/mcp/connections",
            "/api/chat/folders",
            "/api/library/schedules",
            "/api/library/published",
        ):
            for headers in (thief, {}):
                answer = await api.http.get(path, headers=headers)
                assert not [id for id in ("secret", session, agent) if id in answer.text]
        assert (await api.http.delete("/api/chat/user", headers=thief)).status_code == 204
        mine = (await api.http.get(f"/api/chat/sessions/{session}", headers=owner)).json()
        assert len(mine["messages"]) == 4
        assert (await api.http.get(f"/api/chat/tasks/{task}/results/{call}", headers=owner)).status_code == 200
        assert (await api.http.get(here, headers=owner)).status_code == 200
        assert [one.user for one in platform.runs.values()] == [user]
        assert (await api.http.get("/api/library/schedules", headers=owner)).json()["schedules"] == [schedule.json()]


async def _refuses(
    api: RunningApi, method: str, path: str, theirs: Any, nobodys: Any, code: str, headers: Any, body: Any
) -> None:
    """Asserts that another user's object and one that does not exist get the same answer."""
    foreign, missing = [
        await api.http.request(method, path.format(**ids, version=1), headers=headers, json=body)
        for ids in (theirs, nobodys)
    ]
    assert foreign.status_code == missing.status_code, (method, path)
    assert "secret" not in foreign.text
    if method in ("GET", "HEAD") and path.endswith("{session_id}/stream"):
        assert foreign.status_code == 204
    elif path in SIGNED_IN and "authorization" not in headers:
        assert foreign.status_code == 401
    elif method == "HEAD":
        assert foreign.status_code == 404
    else:
        assert (foreign.status_code, foreign.json()["code"]) == (404, code), (method, path)
        assert {**foreign.json(), "request_id": ""} == {**missing.json(), "request_id": ""}


def test_every_route_without_an_id_is_known(postgres_dsn: str) -> None:
    """So that nobody adds one to the tables above and forgets what it shows."""
    app = create_app(Settings(database_url=postgres_dsn, redis_url="redis://127.0.0.1:1/0"))
    paths = {context.path.replace(":path", "") for context in iter_route_contexts(app.routes)}
    assert {path for path in PUBLIC if path not in paths} == set()
    assert {path for _, path in OF_THE_CALLER if path not in paths} == set()


async def test_a_service_writes_notes_into_anybodys_session_with_its_key_alone(
    api: RunningApi,
) -> None:
    """Tokens are required of users here. The turns count to the owner, and a key says nothing in a user's name."""
    key, owner = {"x-api-key": SERVICE_KEY}, bearer("an-owner", **RIGHT)
    session = await api.new_session(owner)
    path, note = f"/api/chat/sessions/{session}/stream", {"message": "a note", "is_user_message": False}
    async with asyncio.timeout(LIMIT), api.http.stream("POST", path, json=note, headers=key) as answer:
        assert answer.status_code == 200, await answer.aread()
        task = answer.headers["x-resumable-stream-id"]
    async with api.resources.database.connection() as c:
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
