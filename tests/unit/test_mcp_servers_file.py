"""The file of MCP servers: the shape that people know, and one line for whatever is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backend.errors import ConfigError
from executor.mcp.server_entry import OAuth
from executor.mcp.servers_file import MAX_SERVERS, HttpServer, Server, StdioServer, read_servers

SECRET = "s3cr3t-of-the-file-0123456789"


def read(tmp_path: Path, servers: Any, **environment: str) -> list[Server]:
    file = tmp_path / "mcp.json"
    file.write_text(servers if isinstance(servers, str) else json.dumps({"mcpServers": servers}))
    return read_servers(file, environment)


def test_both_kinds_are_read_in_the_shape_that_people_know(tmp_path: Path) -> None:
    files, hub, off = {"command": "npx", "args": ["-y", "files"], "env": {"ROOT": "/"}, "cwd": "/tmp"}, {
        "type": "http", "url": "https://mcp.example/mcp", "headers": {"Authorization": "Bearer x"}, "timeout": 5,
        "tools": ["a"], "operations": ["a"], "idempotent": ["a"],
    }, {"command": "off", "disabled": True}  # fmt: skip
    one, other = read(tmp_path, {"files": files, "hub": hub, "off": off})
    assert isinstance(one, StdioServer)
    assert isinstance(other, HttpServer)
    assert (one.name, one.command, one.args, one.cwd) == ("files", "npx", ("-y", "files"), Path("/tmp"))
    assert (one.timeout, one.tools, one.operations, one.idempotent) == (None, None, frozenset(), frozenset())
    assert other.headers["Authorization"].get_secret_value() == "Bearer x"
    assert (other.timeout, other.tools, other.operations, other.idempotent) == (5, {"a"}, {"a"}, {"a"})


def test_variables_of_the_environment_stand_in_for_secrets(tmp_path: Path) -> None:
    servers = {
        "one": {
            "command": "x",
            "args": ["${TOKEN}", "$${NOT_A_VARIABLE}"],
            "env": {"A": "${TOKEN}", "B": "x${NONE:-y}z", "C": "$TOKEN"},
        },
        "two": {"url": "https://host/${TOKEN}", "headers": {"X-Key": "Bearer ${TOKEN}"}},
    }
    one, two = read(tmp_path, servers, TOKEN="t0ken")
    assert isinstance(one, StdioServer)
    assert isinstance(two, HttpServer)
    assert {name: value.get_secret_value() for name, value in one.env.items()} == {
        "A": "t0ken",
        "B": "xyz",
        "C": "t0ken",
    }
    assert one.args == ("t0ken", "${NOT_A_VARIABLE}")
    assert two.url.get_secret_value() == "https://host/t0ken"
    assert two.headers["X-Key"].get_secret_value() == "Bearer t0ken"


@pytest.mark.parametrize(
    ("entry", "place"),
    [
        ({}, "mcpServers.x: "),
        ("npx", "mcpServers.x: "),
        ({"command": SECRET, "url": SECRET}, "mcpServers.x: "),
        ({"command": SECRET, "arguments": [SECRET]}, "mcpServers.x.arguments: Extra"),
        ({"command": SECRET, "name": SECRET}, "mcpServers.x.name: Extra"),
        ({"command": SECRET, "headers": {"A": SECRET}}, "mcpServers.x.headers: Extra"),
        ({"command": SECRET, "args": SECRET}, "mcpServers.x.args: "),
        ({"command": SECRET, "args": [SECRET + "\0"]}, "mcpServers.x.args: "),
        ({"command": SECRET, "env": {"A": [1]}}, "mcpServers.x.env.A: "),
        ({"command": SECRET, "env": {"A=B": SECRET}}, "mcpServers.x.env: "),
        (
            {"command": SECRET, "env": {"A": SECRET + "${NOT_THERE}"}},
            "mcpServers.x.env.A: the environment has no variable NOT_",
        ),
        ({"command": SECRET, "timeout": 0}, "mcpServers.x.timeout: "),
        ({"command": SECRET, "timeout": float("inf")}, "mcpServers.x.timeout: "),
        ({"command": SECRET, "tools": "all"}, "mcpServers.x.tools: "),
        ({"url": f"ftp://{SECRET}"}, "mcpServers.x.url: "),
        ({"url": "https://host", "headers": {"A": f"{SECRET}\r\nB: c"}}, "mcpServers.x.headers: "),
        ({"url": "https://host", "type": "sse"}, "mcpServers.x.type: "),
        ({"url": "https://host", "transport": "sse"}, "mcpServers.x.transport: "),
        ({"url": "https://host", "oauth": {"callbackPort": SECRET}}, "mcpServers.x.oauth.callbackPort: "),
        ({"url": "https://host", "oauth": {"clientSecret": SECRET}}, "mcpServers.x.oauth.client_secret: "),
        ({"url": "https://host", "auth": SECRET}, "mcpServers.x.auth: "),
        ({"url": "https://host", "auth": {"type": SECRET}}, "mcpServers.x.auth.type: "),
        ({"url": "https://host", "auth": {"client_id": "a", "clientId": SECRET}}, "mcpServers.x.auth.clientId: "),
        ({"url": "https://host", "auth": "oauth", "headers": {"authorization": SECRET}}, "mcpServers.x.auth: "),
        ({"command": SECRET, "auth": "oauth"}, "mcpServers.x.auth: "),
        ({"command": SECRET, "env": {"A": "${claim:sub}"}}, "mcpServers.x.env.A: holds ${claim:...}"),
        ({"url": "https://host/${claim:sub}"}, "mcpServers.x.url: holds ${claim:...}"),
        ({"url": "https://host", "headers": {"A": f"{SECRET} ${{claim:a b}}"}}, "mcpServers.x.headers"),
        ({"url": "https://host", "headers": {"A": "${claim:a}\r\nB: c"}}, "mcpServers.x.headers"),
        ({"url": "https://host", "headers": {"X-A": SECRET, "x-a": SECRET}}, "mcpServers.x.headers: two headers have"),
        (
            {"url": "https://host", "headers": {"A": "${claim:a}", "a": SECRET}},
            "mcpServers.x.headers: two headers have",
        ),
        ({"url": "https://host", "auth": {"issuer": f"ftp://{SECRET}"}}, "mcpServers.x.auth.issuer: "),
        ({"url": "https://host", "claim_headers": {"A": [SECRET]}}, "mcpServers.x.claim_headers: "),
        ({"url": "https://host", "auth": "oauth", "headers": {"A": "${claim:a}"}}, "mcpServers.x.auth: "),
        ({"url": "https://host", "auth": "oauth", "per": "session"}, "mcpServers.x.auth: per must be"),
        ({"command": SECRET, "envFile": SECRET}, "mcpServers.x.envFile: "),
        ({"command": SECRET, "timeout": 60_000}, "mcpServers.x.timeout: must be seconds"),
        ({"command": SECRET, "start_timeout": 60_000}, "mcpServers.x.start_timeout: must be seconds"),
        ({"command": SECRET, "initTimeout": SECRET}, "mcpServers.x.initTimeout: "),
        ({"command": SECRET, "initTimeout": -1}, "mcpServers.x.initTimeout: "),
        ({"url": "https://host", "serverUrl": "https://other"}, "mcpServers.x.serverUrl: is given twice"),
        ({"command": SECRET, "args": [SECRET, "${input:token}"]}, "mcpServers.x.args.1: holds ${input:...}"),
        ({"url": "https://host", "headers": {"A": SECRET + "${input:k}"}}, "mcpServers.x.headers.A: holds ${input:"),
        ({"url": "https://host", "headers": {"A": "{{LIBRECHAT_USER_ID}}"}}, "mcpServers.x.headers.A: holds {{"),
        ({"command": "${workspaceFolder:a}/x"}, "mcpServers.x.command: holds ${workspaceFolder:"),
        ({"command": SECRET, "args": ["${NOT_THERE}"]}, "mcpServers.x.args.0: the environment has no variable NOT_"),
        ({"command": SECRET, "calls": 0}, "mcpServers.x.calls: "),
    ],
)
def test_a_wrong_entry_is_named_in_one_line_without_its_secrets(entry: Any, place: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        read(tmp_path, {"x": entry})
    said = str(refused.value)
    assert said.startswith(f"MCP_SERVERS_FILE: {tmp_path}/mcp.json, {place}")
    assert "\n" not in said
    assert SECRET not in said


@pytest.mark.parametrize("name", ["@21st-dev/magic", "Sequential Thinking", "github.com/o/r", "ä", "a" * 100])
def test_names_of_other_clients_are_accepted(name: str, tmp_path: Path) -> None:
    (server,) = read(tmp_path, {name: {"command": "x"}})
    assert server.name == name


@pytest.mark.parametrize("name", ["", " ", "a\nb", "a" * 129])
def test_a_name_must_be_one_that_can_be_printed(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^MCP_SERVERS_FILE: .*, mcpServers\..*: a name must have"):
        read(tmp_path, {name: {"command": "x"}})


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('{"mcpServers": {\n"x": }', "line 2, column 6: not valid JSON"),
        ("[]", "mcpServers: "),
        ('{"servers": []}', "servers: "),
        ('{"servers": {}, "mcpServers": {}}', "servers: stands beside"),
        ('{"mcp": {}}', "mcpServers: "),
        ('{"mcpServers": {"x": {"command": "a"}, "x": {"command": "b"}}}', "x: appears twice"),
        ("[" * 100_000, "nested too deeply"),
        (json.dumps({"mcpServers": {f"s{n}": {"command": "x"} for n in range(MAX_SERVERS + 1)}}), "more than"),
        ('{"x": "' + "y" * 1_000_000 + '"}', "bytes"),
    ],
)
def test_a_file_that_is_no_list_of_servers_is_refused_in_one_line(text: str, what: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^MCP_SERVERS_FILE: [^\n]*mcp.json") as refused:
        read(tmp_path, text)
    assert what in str(refused.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^MCP_SERVERS_FILE: .*none.json cannot be read: No such file"):
        read_servers(tmp_path / "none.json", {})
    (tmp_path / "latin").write_bytes(b"\xe4")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        read_servers(tmp_path / "latin", {})


def test_secrets_do_not_show_when_servers_are_printed(tmp_path: Path) -> None:
    servers = read(
        tmp_path,
        {
            "one": {"command": "x", "args": [SECRET], "env": {"A": SECRET}},
            "two": {"url": f"https://{SECRET}", "headers": {"A": SECRET}},
        },
    )
    assert SECRET not in repr(servers)


def test_files_of_other_clients_are_read(tmp_path: Path) -> None:
    code = {"type": "stdio", "command": "x", "env": {"A": "${env:TOKEN}"}, "dev": {"watch": "src"}}
    librechat = {
        "type": "streamable-http", "url": "https://host/mcp", "timeout": 30, "initTimeout": 90_000, "title": "A",
        "serverInstructions": "Be brief.", "headers": {"Authorization": "Bearer ${TOKEN}"},
    }  # fmt: skip
    cline = {"command": "x", "alwaysAllow": ["a"], "autoApprove": [], "disabledTools": ["b"], "disabled": False}
    others = {"gemini": {"httpUrl": "https://host", "includeTools": ["a"], "trust": True}}
    text = json.dumps({"inputs": [], "servers": {"code": code, "libre": librechat, "cline": cline, **others}})
    one, two, three, four = read(tmp_path, text, TOKEN="t0ken")
    assert isinstance(one, StdioServer)
    assert one.env["A"].get_secret_value() == "t0ken"
    assert isinstance(two, HttpServer)
    assert two.headers["Authorization"].get_secret_value() == "Bearer t0ken"
    assert (two.timeout, two.start_timeout, two.instructions) == (30, 90, "Be brief.")
    assert [three.offers(tool) for tool in "ab"] == [True, False]
    assert isinstance(four, HttpServer)
    assert [four.offers(tool) for tool in "ab"] == [True, False]


def test_what_other_clients_allow_beside_texts_is_read(tmp_path: Path) -> None:
    """VS Code allows numbers and null, Copilot CLI writes `local` and all tools as `*`, Gemini CLI `$NAME`."""
    one, two = read(
        tmp_path,
        {
            "one": {
                "type": "local", "command": "x", "args": ["--port", 8080], "tools": ["*"], "cwd": None,
                "source": "custom",
                "env": {"PORT": 8080, "DEBUG": True, "NONE": None, "TOKEN": "$TOKEN", "PRICE": "5 $US"},
            },
            "two": {"url": "https://host", "headers": {"A": "Bearer $TOKEN"}, "requiresOAuth": False, "enabled": True},
            "off": {"command": "x", "enabled": False},
        },
        TOKEN="t0ken",
    )  # fmt: skip
    assert isinstance(one, StdioServer)
    assert isinstance(two, HttpServer)
    assert (one.args, one.tools, one.cwd) == (("--port", "8080"), None, None)
    env = {name: value.get_secret_value() for name, value in one.env.items()}
    assert env == {"PORT": "8080", "DEBUG": "true", "TOKEN": "t0ken", "PRICE": "5 $US"}
    assert two.headers["A"].get_secret_value() == "Bearer t0ken"
    for sign_in in ({"requiresOAuth": True}, {"oauth": True}):
        [signed] = read(tmp_path, {"x": {"url": "https://host", **sign_in}})
        assert isinstance(signed, HttpServer)
        assert (signed.auth, signed.per) == (OAuth(), "user")
    for value in ("$NOT_THERE", "{{ $json.key }}"):
        with pytest.raises(ConfigError, match="headers"):
            read(tmp_path, {"x": {"url": "https://host", "headers": {"A": value}}})


def test_a_server_that_is_switched_off_may_hold_anything(tmp_path: Path) -> None:
    assert read(tmp_path, {"x": {"disabled": True, "oauth": {}, "type": "sse", "url": "${input:x}"}}) == []


def test_a_sign_in_is_read_as_other_clients_write_it(tmp_path: Path) -> None:
    entries: dict[str, Any] = {
        "short": {"url": "https://host", "auth": "oauth"},
        "code": {"url": "https://host", "oauth": {"clientId": "me"}},
        "cursor": {"url": "https://host", "auth": {"CLIENT_ID": "me", "CLIENT_SECRET": SECRET, "scopes": ["a", "b"]}},
        "libre": {"url": "https://host", "oauth": {"client_id": "me", "scope": "a b"}},
        "none": {"url": "https://host", "oauth": False},
    }
    found = {server.name: server.auth for server in read(tmp_path, entries) if isinstance(server, HttpServer)}
    assert found["short"] == OAuth()
    assert found["code"] == OAuth(client_id="me")
    assert found["libre"] == OAuth(client_id="me", scopes=("a", "b"))
    assert found["none"] is None
    cursor = found["cursor"]
    assert cursor is not None
    assert cursor.client_secret is not None
    assert (cursor.client_secret.get_secret_value(), cursor.scopes) == (SECRET, ("a", "b"))


def test_claims_in_headers_are_left_for_each_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    headers = {"X-User": "${claim:sub}", "X-Who": "a ${env:PLACE:-b} ${claim:https://x/t}!", "X-Same": "$${claim:a}"}
    (server,) = read(tmp_path, {"x": {"url": "https://host", "headers": headers}})
    assert isinstance(server, HttpServer)
    assert server.claim_headers == {"X-User": ("", "sub", ""), "X-Who": ("a b ", "https://x/t", "!")}
    assert server.claims == {"sub", "https://x/t"}
    assert {name: value.get_secret_value() for name, value in server.headers.items()} == {"X-Same": "${claim:a}"}


def test_comments_and_trailing_commas_of_vs_code_are_read(tmp_path: Path) -> None:
    text = """{
        // the servers: "all", of them
        "servers": {
            "x": { "command": "a", "args": ["// no comment", "/* nor this */", "a, ]",], /* one */ },
        },
    }"""
    (server,) = read(tmp_path, text)
    assert isinstance(server, StdioServer)
    assert server.args == ("// no comment", "/* nor this */", "a, ]")
    with pytest.raises(ConfigError, match="line 2, column 5: not valid JSON"):
        read(tmp_path, '{ // comment\n"x" }')
