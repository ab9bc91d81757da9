"""What authorization servers answer to a request for tokens, as they do it and not as they should."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from backend.chat.oauth.token_endpoint import UNNAMED, refresh
from backend.chat.oauth.values import AuthorizationServer, GrantRefused, NotReached, OAuthTokens

OLD = OAuthTokens("old", "refresh", "read", 60)


@asynccontextmanager
async def answering(answer: Callable[[], web.Response]) -> AsyncIterator[AuthorizationServer]:
    async def token(_: web.Request) -> web.Response:
        return answer()

    app = web.Application()
    app.router.add_post("/token", token)
    async with TestServer(app) as server:
        base = str(server.make_url("/")).rstrip("/")
        yield AuthorizationServer(base, base, base, f"{base}/authorize", f"{base}/token", "me", private=True)


def json(status: int, **members: object) -> Callable[[], web.Response]:
    return lambda: web.Response(status=status, body=orjson.dumps(members), content_type="application/json")


def html(status: int) -> Callable[[], web.Response]:
    return lambda: web.Response(status=status, text="<h1>no</h1>", content_type="text/html")


async def renewed(answer: Callable[[], web.Response]) -> OAuthTokens:
    async with answering(answer) as authority:
        return await refresh(authority, OLD)


@pytest.mark.parametrize(
    ("given", "lives"),
    [({}, None), ({"expires_in": 0}, None), ({"expires_in": -1}, None), ({"expires_in": "60"}, 60),
     ({"expires_in": "soon"}, None), ({"expires_in": 1e300}, 316_224_000)],
)  # fmt: skip
async def test_a_life_that_is_not_told_is_unknown(given: dict[str, object], lives: int | None) -> None:
    found = await renewed(json(200, access_token="new", token_type="BEARER", **given))
    assert found == OAuthTokens("new", "refresh", "read", lives)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (json(400, error="invalid_grant"), "invalid_grant"),
        (json(200, error="bad_refresh_token"), "bad_refresh_token"),
        (json(401, message="no"), UNNAMED),
        (html(403), UNNAMED),
        (json(400, error="a b\r\n"), UNNAMED),
    ],
)
async def test_a_refusal_has_the_reason_that_is_told(answer: Callable[[], web.Response], why: str) -> None:
    with pytest.raises(GrantRefused) as refused:
        await renewed(answer)
    assert str(refused.value) == why


@pytest.mark.parametrize(
    "answer",
    [
        json(400, error="temporarily_unavailable"),
        json(403, error="slow_down"),
        json(500, error="invalid_grant"),
        json(302, error="invalid_grant"),
        html(200),
        json(200, access_token="a\r\nb", token_type="bearer"),
        json(200, access_token="a", token_type="mac"),
        lambda: web.Response(
            body=gzip.compress(orjson.dumps({"access_token": "a" * 10_000, "token_type": "bearer"})),
            headers={"content-encoding": "gzip"},
        ),
    ],
)
async def test_other_answers_refuse_nothing(answer: Callable[[], web.Response]) -> None:
    with pytest.raises(NotReached):
        await renewed(answer)
