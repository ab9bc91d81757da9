"""A server that is told who calls, by headers with claims of the caller's token."""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from executor.mcp.failures import ServerUnavailable
from executor.mcp.names import Names
from executor.mcp.oauth.transport import Bearer
from executor.mcp.personal import MOST_USERS, PersonalConnection
from executor.mcp.server_entry import SUBJECT, HttpServer
from executor.mcp.tasks import TaskConnection
from executor.mcp.tool import Caller
from executor.tools.context import Claims

MAX_VALUE = 1_024
"""Characters of a header's value."""
_VALUE = re.compile(r"[!-~]([ -~]*[!-~])?")


class ClaimedConnection(PersonalConnection):
    """A PersonalConnection whose users are named by headers. A value that cannot be sent makes the call fail."""

    def __init__(self, server: HttpServer, call_limit: float, start_timeout: float, names: Names) -> None:
        super().__init__(server, call_limit, start_timeout, names)
        self._headers = server.claim_headers
        self._claims: OrderedDict[str, Claims] = OrderedDict()
        """The newest claims of each user, which the polls of the user's tasks send."""

    async def _identity_of(self, caller: Caller) -> str:
        if caller.claims:
            self._claims[caller.user] = caller.claims
            self._claims.move_to_end(caller.user)
            if len(self._claims) > MOST_USERS:
                self._claims.popitem(last=False)
        claims = {**dict(caller.claims), SUBJECT: caller.user.removeprefix("user:")}
        return json.dumps({name: _filled(parts, claims) for name, parts in self._headers.items()})

    async def _ask_unplaced(self, whose: str | None, act: Callable[[TaskConnection], Awaitable[Any]]) -> Any:
        owner = whose or ""
        return await self._with_session(Caller(owner, owner, claims=self._claims.get(owner, ())), act)

    def _login_of(self, identity: str, owner: str) -> tuple[Bearer | None, Mapping[str, str]]:
        headers: dict[str, str] = json.loads(identity)
        return None, headers


def _filled(parts: tuple[str, ...], claims: Mapping[str, str]) -> str:
    """Returns a header's value. Every second part is the name of a claim. Raises ServerUnavailable."""
    words = list(parts)
    for place in range(1, len(parts), 2):
        value = claims.get(parts[place])
        if value is None:
            raise ServerUnavailable(f"the user's token has no claim {parts[place]}, which this server needs")
        if len(value) > MAX_VALUE or _VALUE.fullmatch(value) is None:
            raise ServerUnavailable(f"the claim {parts[place]} of the user's token cannot be sent in a header")
        words[place] = value
    return "".join(words)
