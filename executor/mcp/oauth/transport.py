"""The HTTP transport below a user's connection: it sends the user's access token with each request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import httpx2

from backend.chat.oauth.values import NotReached
from backend.errors import Unavailable

Bearer = Callable[[str | None], Awaitable[str | None]]
"""Returns a token other than the one that failed; None if the user must sign in. Raises NotReached and Unavailable."""


class SignInServerAway(httpx2.ConnectError):
    """A token could not be had, so the request was not sent. The message says why."""


class BearerTransport(httpx2.AsyncBaseTransport):
    """A request that is answered with 401 is sent again once with a renewed token. It did not run before."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, bearer: Bearer) -> None:
        self._inner = inner
        self._bearer = bearer

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        token = await self._token(None)
        if token is None:
            return httpx2.Response(401, request=request)
        request.headers["authorization"] = f"Bearer {token}"
        response = await self._inner.handle_async_request(request)
        if response.status_code == 401 and (newer := await self._renewed(response, token)) is not None:
            request.headers["authorization"] = f"Bearer {newer}"
            return await self._inner.handle_async_request(request)
        return response

    async def _renewed(self, response: httpx2.Response, failed: str) -> str | None:
        """Returns a newer token, and closes the response if there is one."""
        try:
            newer = await self._token(failed)
        except BaseException:
            await response.aclose()
            raise
        if newer is not None:
            await response.aclose()
        return newer

    async def _token(self, failed: str | None) -> str | None:
        try:
            return await self._bearer(failed)
        except NotReached as error:
            raise SignInServerAway(f"its sign-in server: {error}") from None
        except Unavailable:
            raise SignInServerAway("the tokens of users cannot be read now") from None
