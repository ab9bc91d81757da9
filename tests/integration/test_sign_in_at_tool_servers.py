"""Users sign in at tool servers: fastmcp 4 with its own authorization server, and a whole service by HTTP."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx
import jwt
import pytest
from pydantic import SecretStr

from backend.chat.oauth import token_endpoint
from backend.chat.oauth.sealing import Seal
from backend.chat.oauth.values import (
    OAuthTokens,
    SignIn,
    grant_from_json,
    grant_json,
    hash_of,
    place_of_grant,
    place_of_sign_in,
)
from backend.chat.store.tool_servers import grants, sign_ins
from backend.config import Settings
from backend.resources import open_resources
from executor.mcp import open_mcp
from executor.mcp.oauth.tokens import UserTokens
from executor.tools.tool import Toolbox
from tests.integration.running_api import SETTINGS, RunningApi, bearer, new_user, running_api
from tests.plain_http import http_client
from tests.servers.oauth_servers import CLIENT, left, oauth_servers, sent_back, signed_in_with
from tests.servers.ports import free_port
from tests.speed import limit

LIMIT = limit(20)
KEY = base64.b64encode(bytes(range(32))).decode()


@dataclass
class Service:
    """A whole service, and the tool servers `docs`, `fixed` (registers no clients) and `odd` (names another issuer).

    `who` is told who calls, by headers.
    """

    api: RunningApi
    settings: Settings
    ports: Mapping[str, int]
    http: httpx.AsyncClient

    async def seen(self, server: str = "docs") -> dict[str, Any]:
        answer = await self.http.get(f"http://127.0.0.1:{self.ports[server]}/test")
        found: dict[str, Any] = answer.json()
        return found

    async def change(self, what: str) -> None:
        answer = await self.http.post(f"http://127.0.0.1:{self.ports['docs']}/test/{what}")
        assert answer.status_code == 200

    async def connections(self, mine: Mapping[str, str]) -> list[dict[str, Any]]:
        answer = await self.api.http.get("/api/chat/mcp/connections", headers=mine)
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["connections"]
        return found


@asynccontextmanager
async def tools_of(settings: Settings) -> AsyncIterator[Toolbox]:
    async with open_resources(settings) as resources, open_mcp(settings, (), resources.database) as servers:
        yield Toolbox([], servers)


@pytest.fixture(scope="module")
async def service(
    postgres_dsn: str, redis_dsn: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Service]:
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    ports = {name: free_port() for name in ("docs", "fixed", "odd", "who")}
    callback = f"{base}/api/chat/mcp/callback"
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(oauth_servers(list(ports.values()), {**CLIENT, "redirect_uris": [callback]}))
        auth = {"docs": "oauth", "fixed": {k: CLIENT[k] for k in ("client_id", "client_secret")}, "odd": "oauth"}
        file = tmp_path_factory.mktemp("oauth") / "mcp.json"
        servers: dict[str, Any] = {
            name: {"url": f"http://127.0.0.1:{at}/mcp", "auth": how}
            for (name, how), at in zip(auth.items(), list(ports.values())[:3], strict=True)
        }
        headers = {"X-User": "${claim:sub}", "X-Mail": "<${claim:email}>", "X-Same": "all"}
        servers["who"] = {"url": f"http://127.0.0.1:{ports['who']}/mcp", "headers": headers}
        file.write_text(json.dumps({"mcpServers": servers}))
        changes: dict[str, Any] = {
            "port": port, "platform_base_url": base, "mcp_servers_file": file, "mcp_token_keys": KEY,
            "mcp_claims": "email, tenant", "tool_approval": "who_later=ask",
        }  # fmt: skip
        settings = Settings(**{**SETTINGS, "database_url": postgres_dsn, "redis_url": redis_dsn, **changes})
        toolbox = await stack.enter_async_context(tools_of(settings))
        api = await stack.enter_async_context(
            running_api(postgres_dsn, redis_dsn, toolbox=lambda _: toolbox, **changes)
        )
        yield Service(api, settings, ports, await stack.enter_async_context(http_client(timeout=LIMIT)))


@dataclass
class Chat:
    """A conversation of a user, in a browser of their own."""

    service: Service
    mine: dict[str, str]
    session: str
    browser: httpx.AsyncClient

    async def call(self, tool: str, accept: str = "questions") -> dict[str, Any]:
        """Calls a tool. Returns its output."""
        answer, client = await self.service.api.read(
            "POST", f"/api/chat/sessions/{self.session}/stream", params={"accept": accept} if accept else {},
            json={"message": f"/tool {tool}"}, headers=self.mine,
        )  # fmt: skip
        assert answer.status_code == 200, answer.text
        (output,) = [chunk["output"] for chunk in client.chunks if chunk["type"] == "tool-output-available"]
        found: dict[str, Any] = output
        return found

    async def asked_to_sign_in(self, tool: str) -> dict[str, Any]:
        """Calls a tool that needs a sign-in. Returns the output, which has the card."""
        output = await self.call(tool)
        assert (output["type"], output["asks"]) == ("operation_started", "elicitation"), output
        return output

    async def continued(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Returns the output of the call that was made again, when the conversation has gone on."""
        client = await self.service.api.ended(asked["task_id"], self.mine)
        (output,) = [chunk["output"] for chunk in client.chunks if chunk["type"] == "tool-output-available"]
        found: dict[str, Any] = output
        return found

    async def left(self, link: str) -> str:
        return await left(self.browser, link)

    async def sent_back(self, url: str) -> str:
        return await sent_back(self.browser, url)

    async def sign_in(self, link: str) -> httpx.Response:
        return await signed_in_with(self.browser, link)


@pytest.fixture
async def chat(service: Service) -> AsyncIterator[Chat]:
    async with http_client(timeout=LIMIT) as browser:
        mine = service.api.as_user()
        yield Chat(service, mine, await service.api.new_session(mine), browser)


@asynccontextmanager
async def another(service: Service, **claims: Any) -> AsyncIterator[Chat]:
    async with http_client(timeout=LIMIT) as browser:
        mine = bearer(new_user(), **claims)
        yield Chat(service, mine, await service.api.new_session(mine), browser)


def link_in(asked: dict[str, Any]) -> str:
    link: str = asked["question"]["url"]
    return link


def word(output: dict[str, Any]) -> str:
    assert output["type"] == "block_output", output
    found = output["outputs"]
    text: str = found["result"] if isinstance(found, dict) else found[0]["text"]
    return text


async def signed_in(chat: Chat, tool: str = "docs_whoami") -> str:
    asked = await chat.asked_to_sign_in(tool)
    page = await chat.sign_in(link_in(asked))
    assert (page.status_code, "signed in" in page.text) == (200, True), page.text
    return word(await chat.continued(asked))


async def test_a_call_goes_on_by_itself_when_the_user_has_signed_in(chat: Chat) -> None:
    asked = await chat.asked_to_sign_in("docs_whoami")
    assert asked["question"]["server"] == "docs"
    link = link_in(asked)
    assert link.startswith(f"{chat.service.settings.platform_base_url}/api/chat/mcp/sign-in?ticket=")
    assert await chat.service.connections(chat.mine) == []
    there = httpx.URL(await chat.left(link))
    assert there.params["code_challenge_method"] == "S256"
    assert there.params["resource"] == f"http://127.0.0.1:{chat.service.ports['docs']}/mcp"
    page = await chat.browser.get(await chat.sent_back(str(there)))
    assert (page.status_code, "signed in" in page.text) == (200, True), page.text
    assert len(word(await chat.continued(asked))) == 16
    (connection,) = await chat.service.connections(chat.mine)
    assert (connection["server"], connection["scopes"]) == ("docs", ["read"])
    assert set(connection) == {"server", "signed_in_at", "scopes", "expires_at"}
    assert len(word(await chat.call("docs_whoami"))) == 16, "the next call needs no sign-in"
    again = await chat.browser.get(link)
    assert "signed in" in again.text


async def test_until_a_user_has_signed_in_a_server_offers_one_tool(chat: Chat, service: Service) -> None:
    asked = await chat.asked_to_sign_in("docs_sign_in")
    assert (await chat.sign_in(link_in(asked))).status_code == 200
    told = word(await chat.continued(asked))
    assert ("docs_whoami" in told, "docs_write" in told) == (True, True)
    assert len(word(await chat.call("docs_whoami"))) == 16


async def test_two_users_have_tokens_of_their_own(chat: Chat, service: Service) -> None:
    async with another(service) as other:
        mine, theirs = await signed_in(chat), await signed_in(other)
        assert mine != theirs
        assert [word(await one.call("docs_whoami")) for one in (chat, other)] == [mine, theirs]
        gone = await service.api.http.delete("/api/chat/mcp/connections/docs", headers=other.mine)
        assert gone.status_code == 204
        assert await service.connections(other.mine) == []
        assert word(await chat.call("docs_whoami")) == mine, "nobody else was signed out"
        assert await other.asked_to_sign_in("docs_whoami")


async def test_signing_out_revokes_the_tokens_and_the_next_call_asks_again(chat: Chat, service: Service) -> None:
    await signed_in(chat)
    before = (await service.seen())["revoked"]
    path = "/api/chat/mcp/connections/docs"
    assert (await service.api.http.delete(path, headers=service.api.as_user())).status_code == 404
    assert (await service.api.http.delete(path)).status_code == 404
    assert (await service.api.http.delete(path, headers=chat.mine)).status_code == 204
    assert (await service.seen())["revoked"] == before + 1
    again = await service.api.http.delete(path, headers=chat.mine)
    assert (again.status_code, again.json()["code"]) == (404, "connection_not_found")
    assert await chat.asked_to_sign_in("docs_whoami")


async def test_deleting_a_user_revokes_the_tokens(chat: Chat, service: Service) -> None:
    await signed_in(chat)
    before = (await service.seen())["revoked"]
    assert (await service.api.http.delete("/api/chat/user", headers=chat.mine)).status_code == 204
    assert (await service.seen())["revoked"] == before + 1


@pytest.mark.parametrize("other_client", [True, False])
async def test_a_new_sign_in_revokes_the_tokens_of_another_client_only(
    chat: Chat, service: Service, monkeypatch: pytest.MonkeyPatch, other_client: bool
) -> None:
    await signed_in(chat)
    seal, revoked = Seal.of(SecretStr(KEY)), list[str]()
    assert seal is not None
    async with service.api.resources.database.connection() as c:
        owner = await c.fetchval("SELECT owner FROM tool_server_grants ORDER BY created_at DESC LIMIT 1")
        grant = await grants.find(c, owner, "docs")
        assert grant is not None
        place = place_of_grant(owner, "docs")
        authority, tokens = grant_from_json(seal.open(grant.sealed, place))
        if other_client:
            sealed = seal.seal(grant_json(replace(authority, client_id="other"), tokens), place)
            assert await grants.renew(c, grant, sealed, tokens.scopes, 3_600)

    async def revoke(_: Any, old: OAuthTokens) -> bool:
        revoked.append(old.access)
        return True

    monkeypatch.setattr(token_endpoint, "revoke", revoke)
    asked = await chat.asked_to_sign_in("docs_write")
    assert (await chat.sign_in(link_in(asked))).status_code == 200
    assert word(await chat.continued(asked)) == "written"
    assert revoked == ([tokens.access] if other_client else [])


async def test_a_token_that_has_ended_is_renewed_once_however_many_calls_need_it(chat: Chat, service: Service) -> None:
    first = await signed_in(chat)
    before = await service.seen()
    await service.change("expire")
    sessions = [await service.api.new_session(chat.mine) for _ in range(4)]
    chats = [Chat(service, chat.mine, session, chat.browser) for session in sessions]
    said = {word(output) for output in await asyncio.gather(*(one.call("docs_whoami") for one in chats))}
    assert len(said) == 1
    assert said != {first}
    after = await service.seen()
    assert (after["refreshed"] - before["refreshed"], after["exchanged"] - before["exchanged"]) == (1, 0)


async def test_two_executors_renew_a_token_once(chat: Chat, service: Service) -> None:
    await signed_in(chat)
    seal, before = Seal.of(SecretStr(KEY)), await service.seen()
    assert seal is not None
    url = f"http://127.0.0.1:{service.ports['docs']}/mcp"
    async with open_resources(service.settings) as one, open_resources(service.settings) as other:
        both = [UserTokens("docs", url, resources.database, seal) for resources in (one, other)]
        async with one.database.connection() as c:
            owner = await c.fetchval("SELECT owner FROM tool_server_grants ORDER BY created_at DESC LIMIT 1")
        held = await both[0].find(owner)
        assert held is not None
        asking = [tokens.valid(owner, held.grant.id, held.tokens.access) for tokens in both * 4]
        found = set(await asyncio.gather(*asking))
    assert len(found) == 1
    assert not found & {None, held.tokens.access}
    assert (await service.seen())["refreshed"] == before["refreshed"] + 1


async def test_a_renewal_whose_process_died_is_made_by_another_one(chat: Chat, service: Service) -> None:
    first = await signed_in(chat)
    await service.change("expire")
    async with service.api.resources.database.connection() as c:
        await c.execute("UPDATE tool_server_grants SET leased_until = now() + interval '1 s'")
    before = (await service.seen())["refreshed"]
    assert word(await chat.call("docs_whoami")) != first
    assert (await service.seen())["refreshed"] == before + 1


async def test_a_token_that_cannot_be_renewed_is_used_while_the_server_takes_it(chat: Chat, service: Service) -> None:
    first, seal = await signed_in(chat), Seal.of(SecretStr(KEY))
    assert seal is not None
    async with service.api.resources.database.connection() as c:
        owner = await c.fetchval("SELECT owner FROM tool_server_sign_ins ORDER BY created_at DESC LIMIT 1")
        grant = await grants.find(c, owner, "docs")
        assert grant is not None
        place = place_of_grant(owner, "docs")
        authority, tokens = grant_from_json(seal.open(grant.sealed, place))
        sealed = seal.seal(grant_json(authority, replace(tokens, refresh="")), place)
        assert await grants.renew(c, grant, sealed, tokens.scopes, 0)
    assert word(await chat.call("docs_whoami")) == first
    assert len(await service.connections(chat.mine)) == 1


async def test_a_token_that_nearly_ends_is_renewed_before_the_call(chat: Chat, service: Service) -> None:
    await service.change("brief")
    try:
        first = await signed_in(chat)
        assert word(await chat.call("docs_whoami")) != first
    finally:
        await service.change("usual")


async def test_a_refused_renewal_asks_the_user_to_sign_in_again(chat: Chat, service: Service) -> None:
    first = await signed_in(chat)
    await service.change("forget")
    asked = await chat.asked_to_sign_in("docs_whoami")
    assert await service.connections(chat.mine) == []
    assert (await chat.sign_in(link_in(asked))).status_code == 200
    assert word(await chat.continued(asked)) != first


async def test_more_scopes_are_asked_for_when_a_call_needs_them(chat: Chat, service: Service) -> None:
    await signed_in(chat)
    asked = await chat.asked_to_sign_in("docs_write")
    assert "more rights" in asked["question"]["text"]
    assert (await chat.sign_in(link_in(asked))).status_code == 200
    assert word(await chat.continued(asked)) == "written"
    (connection,) = await service.connections(chat.mine)
    assert connection["scopes"] == ["read", "write"]


async def test_a_client_that_the_server_has_forgotten_is_registered_again(chat: Chat, service: Service) -> None:
    asked = await chat.asked_to_sign_in("docs_whoami")
    await service.change("clients")
    there = await chat.browser.get(await chat.left(link_in(asked)))
    assert there.status_code == 400, "the server tells the user only"
    async with service.api.resources.database.connection() as c:
        await c.execute("UPDATE tool_server_clients SET created_at = now() - interval '1 h'")
    other = Chat(service, chat.mine, await service.api.new_session(chat.mine), chat.browser)
    assert await signed_in(other)


async def test_no_tokens_are_stored_for_a_session_that_was_deleted(chat: Chat, service: Service) -> None:
    asked = await chat.asked_to_sign_in("docs_whoami")
    callback = await chat.sent_back(await chat.left(link_in(asked)))
    before = await service.seen()
    exchange = token_endpoint.exchange

    async def slow(*given: Any) -> Any:
        tokens = await exchange(*given)
        deleted = await service.api.http.delete(f"/api/chat/sessions/{chat.session}", headers=chat.mine)
        assert deleted.status_code == 204
        return tokens

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_endpoint, "exchange", slow)
        assert (await chat.browser.get(callback)).status_code == 410
    assert await service.connections(chat.mine) == []
    assert (await service.seen())["revoked"] == before["revoked"] + 1


async def test_a_user_who_denies_access_ends_the_question(chat: Chat, service: Service) -> None:
    asked = await chat.asked_to_sign_in("docs_whoami")
    await service.change("deny")
    try:
        page = await chat.sign_in(link_in(asked))
    finally:
        await service.change("deny")
    assert (page.status_code, "No access" in page.text) == (200, True)
    output = await chat.continued(asked)
    assert (output["type"], "did not open" in output["message"]) == ("error", True)
    assert (await chat.browser.get(link_in(asked))).status_code == 410
    assert await service.connections(chat.mine) == []


async def test_a_state_counts_once_and_only_in_the_browser_that_began(chat: Chat, service: Service) -> None:
    asked = await chat.asked_to_sign_in("docs_whoami")
    link = link_in(asked)
    async with another(service) as other:
        for _ in range(2):  # another site can lead a browser to the page, and from there on, but does not see the page
            page = await other.browser.get(f"{link}&go=true")
            assert (page.status_code, "Go on only if" in page.text) == (200, True), "the first page cannot be skipped"
        (own,) = re.findall(r"go=([\w-]+)", (await chat.browser.get(link)).text)
        page = await other.browser.get(f"{link}&go={own}")
        assert (page.status_code, "Go on only if" in page.text) == (200, True), "a link of another browser's page"
        assert chat.mine["authorization"] not in page.text
        callback = await chat.sent_back(await chat.left(link))
    async with another(service) as other:
        stolen = await other.browser.get(callback)
        assert (stolen.status_code, "another browser" in stolen.text) == (403, True)
    wrong = httpx.URL(callback).copy_set_param("state", secrets.token_urlsafe(32))
    assert (await chat.browser.get(wrong)).status_code == 410
    assert await service.connections(chat.mine) == []
    assert (await chat.browser.get(callback)).status_code == 200
    assert (await chat.browser.get(callback)).status_code == 410
    assert len(word(await chat.continued(asked))) == 16


async def test_the_pages_work_under_a_path_and_name_the_real_host(
    chat: Chat, service: Service, postgres_dsn: str, redis_dsn: str
) -> None:
    asked = await chat.asked_to_sign_in("docs_whoami")
    ticket, seal = httpx.URL(link_in(asked)).params["ticket"], Seal.of(SecretStr(KEY))
    id = hash_of(ticket)
    assert seal is not None
    async with service.api.resources.database.connection() as c:
        row = await sign_ins.find(c, id)
        assert row is not None
        sign_in = SignIn.from_json(seal.open(row.sealed, place_of_sign_in(id)))
        odd = replace(sign_in.authority, authorization_endpoint="https://known.example@other.example/authorize")
        sealed = seal.seal(replace(sign_in, authority=odd).as_json(), place_of_sign_in(id))
        await c.execute("UPDATE tool_server_sign_ins SET sealed = $2 WHERE id = $1", id, sealed)
    changes: dict[str, Any] = {"platform_base_url": "https://proxy.example/copilot/", "mcp_token_keys": KEY}
    async with running_api(postgres_dsn, redis_dsn, executor=False, **changes) as proxied:
        page = await proxied.http.get("/api/chat/mcp/sign-in", params={"ticket": ticket})
    (href,) = re.findall(r'href="([^"]+)"', page.text)
    assert href.startswith("?ticket=")
    assert ("at <strong>other.example</strong>" in page.text, "known.example" in page.text) == (True, False)
    assert "Path=/copilot/api/chat/mcp;" in page.headers["set-cookie"]
    assert "Secure" in page.headers["set-cookie"]


async def test_an_answer_of_another_server_and_an_expired_link_are_refused(chat: Chat, service: Service) -> None:
    asked = await chat.asked_to_sign_in("docs_whoami")
    callback = await chat.sent_back(await chat.left(link_in(asked)))
    mixed = await chat.browser.get(httpx.URL(callback).copy_set_param("iss", "https://other.example"))
    assert (mixed.status_code, "another server" in mixed.text) == (502, True)
    async with service.api.resources.database.connection() as c:
        await c.execute("UPDATE tool_server_sign_ins SET state_until = now() - interval '1 s'")
    late = await chat.browser.get(await chat.sent_back(await chat.left(link_in(asked))))
    assert late.status_code == 200, "a new visit has a new state"
    assert word(await chat.continued(asked))
    other = await chat.asked_to_sign_in("fixed_whoami")
    async with service.api.resources.database.connection() as c:
        await c.execute("UPDATE tool_server_sign_ins SET expires_at = now() - interval '1 s' WHERE server = 'fixed'")
    assert (await chat.browser.get(link_in(other))).status_code == 410


async def test_a_server_that_registers_no_clients_takes_the_one_of_the_file(chat: Chat, service: Service) -> None:
    assert await signed_in(chat, "fixed_whoami")
    assert (await service.seen("fixed"))["registered"] == 0
    assert [one["server"] for one in await service.connections(chat.mine)] == ["fixed"]
    assert (await service.seen("docs"))["registered"] <= 2, "one registration serves all users"


async def test_a_sign_in_server_with_another_issuer_is_refused(chat: Chat) -> None:
    output = await chat.call("odd_whoami")
    assert (output["type"], output["error"]) == ("error", "tool_unavailable")
    assert "sign-in server" in output["message"]


async def test_without_questions_the_link_is_told_and_an_anonymous_caller_gets_none(
    chat: Chat, service: Service
) -> None:
    output = await chat.call("docs_whoami", accept="")
    assert (output["type"], output["error"]) == ("error", "tool_unavailable")
    (link,) = re.findall(r"http\S+", output["message"])
    assert (await chat.sign_in(link)).status_code == 200
    assert len(word(await chat.call("docs_whoami"))) == 16
    anonymous = Chat(service, {}, await service.api.new_session(), chat.browser)
    output = await anonymous.call("docs_whoami")
    assert (output["error"], "anonymous" in output["message"]) == ("tool_unavailable", True)


async def test_this_service_describes_itself_as_a_client(service: Service) -> None:
    base = service.settings.platform_base_url
    found = (await service.api.http.get("/api/chat/mcp/client.json")).json()
    assert (found["client_id"], found["redirect_uris"]) == (
        f"{base}/api/chat/mcp/client.json", [f"{base}/api/chat/mcp/callback"],
    )  # fmt: skip
    for path in ("sign-in", "sign-in?ticket=x", "callback", "callback?state=x&code=y", "callback?state=%C3%A4"):
        assert (await service.api.http.get(f"/api/chat/mcp/{path}")).status_code == 410, path


async def test_nothing_secret_is_stored_in_clear_or_logged(
    chat: Chat, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    asked = await chat.asked_to_sign_in("docs_whoami")
    callback = await chat.sent_back(await chat.left(link_in(asked)))
    await chat.browser.get(callback)
    assert word(await chat.continued(asked))
    async with service.api.resources.database.connection() as c:
        rows = [dict(row) for row in await c.fetch("SELECT * FROM tool_server_grants")]
        rows += [dict(row) for row in await c.fetch("SELECT * FROM tool_server_sign_ins")]
        rows += [dict(row) for row in await c.fetch("SELECT * FROM tool_server_clients")]
    stored = repr(rows)
    code, state = (httpx.URL(callback).params[name] for name in ("code", "state"))
    ticket = httpx.URL(link_in(asked)).params["ticket"]
    for secret in ("test_access_token", "test_refresh_token", code, state, ticket):
        assert secret not in stored
        assert secret not in caplog.text


async def test_a_server_is_told_who_calls_by_claims_of_the_token(service: Service) -> None:
    async with another(service, email="a@example.com") as one, another(service, email="b@example.com") as other:
        for chat, mail in ((one, "<a@example.com>"), (other, "<b@example.com>"), (one, "<a@example.com>")):
            told = json.loads(word(await chat.call("who_headers")))
            user = jwt.decode(chat.mine["authorization"].split()[1], options={"verify_signature": False})["sub"]
            assert {name: told[name] for name in ("x-user", "x-mail", "x-same")} == {
                "x-user": user, "x-mail": mail, "x-same": "all",
            }  # fmt: skip
        asked = await one.call("who_later")
        assert asked["asks"] == "approval"
        path = f"/api/chat/operations/{asked['operation_id']}/answer"
        assert (await service.api.http.post(path, json={"approved": True}, headers=one.mine)).status_code == 200
        assert json.loads(word(await one.continued(asked)))["x-mail"] == "<a@example.com>", "kept with the message"


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({}, "no claim email"),
        ({"email": ["a@example.com"]}, "no claim email"),
        ({"email": "a@example.com\r\nX-User: root"}, "no claim email"),
        ({"email": "ä@example.com"}, "cannot be sent in a header"),
    ],
)
async def test_a_claim_that_cannot_be_sent_fails_the_call(service: Service, claims: dict[str, Any], why: str) -> None:
    async with another(service, **claims) as chat:
        output = await chat.call("who_headers")
        assert (output["error"], why in output["message"]) == ("tool_unavailable", True), output
        assert "example.com" not in output["message"]


async def test_an_anonymous_caller_has_no_claims(service: Service, chat: Chat) -> None:
    anonymous = Chat(service, {}, await service.api.new_session(), chat.browser)
    output = await anonymous.call("who_headers")
    assert (output["error"], "anonymous" in output["message"]) == ("tool_unavailable", True)
