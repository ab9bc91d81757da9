"""The file that MCP_SERVERS_FILE names. It lists servers in the format that other MCP clients use too."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from backend.errors import ConfigError
from executor.mcp.server_entry import HttpServer, Server, StdioServer

__all__ = ["MAX_SERVERS", "HttpServer", "Server", "StdioServer", "read_servers"]
SETTING = "MCP_SERVERS_FILE"
MAX_FILE_BYTES, MAX_SERVERS, MAX_NAME_CHARS = 1_000_000, 32, 128
_PLACEHOLDER = re.compile(r"\$?\$\{([^{}]*)\}")
_CLAIM = re.compile(r"(?<!\$)\$\{claim:([^{}]*)\}")
_VARIABLE = re.compile(r"(?:env:)?([A-Za-z_]\w*)(?::-(.*))?", re.DOTALL)
_TEMPLATE = re.compile(r"\{\{\s*[$A-Za-z_][\w.$-]*\s*\}\}")
_DOLLAR = re.compile(r"((?:[A-Za-z]+ )?)\$([A-Z][A-Z0-9_]*)")
"""A whole value, or one behind a scheme like Bearer, that is a variable as Gemini CLI writes it."""
_STRING = r'"(?:[^"\\\n]|\\.)*"'
_COMMENT = re.compile(_STRING + r"|//[^\n]*|/\*.*?\*/", re.DOTALL)
_TRAILING_COMMA = re.compile(_STRING + r"|,(?=\s*[}\]])")
_OTHER_NAMES = {
    "transport": "type", "transportType": "type", "serverUrl": "url", "httpUrl": "url",
    "serverInstructions": "instructions", "oauth": "auth",
    "includeTools": "tools", "excludeTools": "excluded", "disabledTools": "excluded",
}  # fmt: skip
"""Members under the names that other clients give them, and the names here."""
_AUTH_NAMES = {
    "type": "type", "client_id": "client_id", "clientId": "client_id", "CLIENT_ID": "client_id",
    "client_secret": "client_secret", "clientSecret": "client_secret", "CLIENT_SECRET": "client_secret",
    "scope": "scopes", "scopes": "scopes", "private": "private", "issuer": "issuer",
}  # fmt: skip
"""Members of a sign-in under the names that other clients give them, and the names here."""
_WITHOUT_EFFECT = frozenset(
    {
        "alwaysAllow", "autoApprove", "trust", "description", "title", "icon", "iconPath", "version", "gallery", "tags",
        "chatMenu", "dev", "author", "homepage", "startup", "stderr", "watchPaths", "source", "alwaysLoad",
    }
)  # fmt: skip
"""Members of other clients that have no effect here. The setting TOOL_APPROVAL decides about approvals."""
_TYPES = {"local": "stdio", "remote": "http"}
_REFUSED = {
    "envFile": "is not read; put the variables into env",
    "customUserVars": "values of users are not supported",
}
logger = logging.getLogger(__name__)


def read_servers(file: Path, environment: Mapping[str, str]) -> list[Server]:
    """Returns the servers that are not disabled, in the file's order.

    `${VAR}`, `${env:VAR}` and `${VAR:-else}` in texts are replaced from `environment`; `$${` stands for `${`.
    Raises ConfigError with one line that names the setting, the file and the place, but no value of the file.
    """
    place, entries = _entries(file)
    servers = [_server(file, f"{place}.{name}", name, entry, environment) for name, entry in entries.items()]
    return [server for server in servers if server is not None and not server.disabled]


def _entries(file: Path) -> tuple[str, dict[str, Any]]:
    """Returns the servers by name, and the member that holds them: `servers` in files of VS Code."""
    document = _document(file)
    lists = [name for name in ("mcpServers", "servers") if isinstance(document, dict) and name in document]
    if len(lists) == 2:
        raise _wrong(file, "servers", "stands beside mcpServers; one of them must hold all servers")
    place = lists[0] if lists else "mcpServers"
    entries = document[place] if lists else None
    if not isinstance(entries, dict):
        raise _wrong(file, place, "must be an object of servers by name")
    if len(entries) > MAX_SERVERS:
        raise _wrong(file, place, f"has more than {MAX_SERVERS} servers")
    return place, entries


def _document(file: Path) -> Any:
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{SETTING}: {file} has more than {MAX_FILE_BYTES} bytes")
        return json.loads(_plain_json(file.read_text(encoding="utf-8-sig")), object_pairs_hook=_each_once)
    except OSError as error:
        raise ConfigError(f"{SETTING}: {file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{SETTING}: {file} is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"{SETTING}: {file}, line {error.lineno}, column {error.colno}: not valid JSON") from None
    except RecursionError:
        raise ConfigError(f"{SETTING}: {file} is nested too deeply") from None
    except _TwiceError as error:
        raise _wrong(file, str(error), "appears twice in one object") from None


def _plain_json(text: str) -> str:
    """Returns the text without comments and trailing commas, which VS Code allows; each place in it stays the same."""

    def blanked(found: re.Match[str]) -> str:
        return found[0] if found[0].startswith('"') else re.sub(r"[^\n]", " ", found[0])

    return _TRAILING_COMMA.sub(blanked, _COMMENT.sub(blanked, text))


class _TwiceError(Exception):
    """A key that appears twice in an object. The json module would take its last value."""


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _TwiceError(key)
        found[key] = value
    return found


def _server(file: Path, place: str, name: str, entry: Any, environment: Mapping[str, str]) -> Server | None:
    if not name.strip() or len(name) > MAX_NAME_CHARS or not name.isprintable():
        raise _wrong(file, place, f"a name must have 1 to {MAX_NAME_CHARS} printable characters")
    if isinstance(entry, dict) and (entry.get("disabled") is True or entry.get("enabled") is False):
        return None  # whatever else it holds
    if not isinstance(entry, dict):
        raise _wrong(file, place, "must be an object with either command or url")
    known = _in_our_words(file, place, entry)
    if ("command" in known) == ("url" in known):
        raise _wrong(file, place, "must be an object with either command or url")
    if own := {"name", "claim_headers"} & entry.keys():
        raise _wrong(file, f"{place}.{min(own)}", "Extra inputs are not permitted")
    headers = known.get("headers")
    if isinstance(headers, dict) and len({str(name).lower() for name in headers}) < len(headers):
        raise _wrong(file, f"{place}.headers", "two headers have one name; case does not count")
    claiming = _headers_with_claims(known)
    filled: dict[str, Any] = {
        key: value if key == "instructions" else _filled(file, f"{place}.{key}", value, environment)
        for key, value in known.items()
    }
    if claiming:
        filled["claim_headers"] = {
            name: [
                part if number % 2 else _filled(file, f"{place}.headers.{name}", part, environment)
                for number, part in enumerate(parts)
            ]
            for name, parts in claiming.items()
        }
    try:
        kind = StdioServer if "command" in known else HttpServer
        return kind.model_validate({**filled, "name": name})
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        member, *inside = first["loc"] or ("auth",)
        member = "headers" if member == "claim_headers" else member
        where = ".".join((place, *(str(part) for part in (_their_word(entry, str(member)), *inside))))
        raise _wrong(file, where, first["msg"].removeprefix("Value error, ")) from None


def _headers_with_claims(known: dict[str, Any]) -> dict[str, list[str]]:
    """Removes the headers with `${claim:NAME}`. Returns them as texts, with a claim's name at every second place."""
    headers = known.get("headers")
    if not isinstance(headers, dict) or "url" not in known:
        return {}
    split = {name: _CLAIM.split(value) for name, value in headers.items() if isinstance(value, str)}
    claiming = {name: parts for name, parts in split.items() if len(parts) > 1}
    known["headers"] = {name: value for name, value in headers.items() if name not in claiming}
    return claiming


def _in_our_words(file: Path, place: str, entry: dict[str, Any]) -> dict[str, Any]:
    """Returns the members of an entry, with other clients' names replaced by those of this file."""
    known: dict[str, Any] = {}
    for theirs, given in entry.items():
        if given is None or (theirs, given) in (("enabled", True), ("requiresOAuth", False), ("tools", ["*"])):
            continue  # as if it were not there
        if theirs in _REFUSED:
            raise _wrong(file, f"{place}.{theirs}", _REFUSED[theirs])
        if theirs in _WITHOUT_EFFECT:
            logger.info("a member of the MCP servers file has no effect here", extra={"member": f"{place}.{theirs}"})
            continue
        ours = "auth" if (theirs, given) == ("requiresOAuth", True) else _OTHER_NAMES.get(theirs, theirs)
        value = _auth_in_our_words(file, f"{place}.{theirs}", given) if ours == "auth" else _plain(ours, given)
        if ours == "auth" and value is None:
            continue
        if ours in known:
            raise _wrong(file, f"{place}.{theirs}", "is given twice, under two names")
        known[ours] = value
    if "initTimeout" in known:
        milliseconds = known.pop("initTimeout")
        if not isinstance(milliseconds, int | float) or isinstance(milliseconds, bool):
            raise _wrong(file, f"{place}.initTimeout", "must be a number of milliseconds")
        known.setdefault("start_timeout", milliseconds / 1000)
    return known


def _plain(member: str, value: Any) -> Any:
    """Returns what some clients allow beside texts, as a text, and their variables and types as this file has them."""
    match member, value:
        case (("env" | "headers"), dict()):
            told = {name: _word(one) for name, one in value.items() if one is not None}
            return {name: _DOLLAR.sub(r"\1${\2}", one) if _is_dollar(one) else one for name, one in told.items()}
        case "args", list():
            return [_word(one) for one in value]
        case "type", str():
            return _TYPES.get(value, value)
    return value


def _is_dollar(value: Any) -> bool:
    return isinstance(value, str) and _DOLLAR.fullmatch(value) is not None


def _word(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


def _auth_in_our_words(file: Path, place: str, value: Any) -> Any:
    """Returns what other clients write under `oauth` and `auth`, as this file has it; None for no sign-in."""
    if value is True:
        return {}
    if value is False or not isinstance(value, dict):
        return value or None
    known: dict[str, Any] = {}
    for theirs, member in value.items():
        ours = _AUTH_NAMES.get(theirs)
        if ours is None:
            raise _wrong(file, f"{place}.{theirs}", "is not supported here: the server names its sign-in itself")
        if ours in known:
            raise _wrong(file, f"{place}.{theirs}", "is given twice, under two names")
        known[ours] = member.split() if ours == "scopes" and isinstance(member, str) else member
    if known.pop("type", "oauth") not in ("oauth", "oauth2"):
        raise _wrong(file, f"{place}.type", 'must be "oauth"')
    return known


def _their_word(entry: dict[str, Any], member: str) -> str:
    other = {**_OTHER_NAMES, "initTimeout": "start_timeout"}
    return member if member in entry else next((name for name in entry if other.get(name) == member), member)


def _filled(file: Path, place: str, value: Any, environment: Mapping[str, str]) -> Any:
    """Returns the value with its placeholders replaced. Refuses placeholders that only other clients know."""
    if isinstance(value, dict):
        return {name: _filled(file, f"{place}.{name}", member, environment) for name, member in value.items()}
    if isinstance(value, list):
        return [_filled(file, f"{place}.{number}", member, environment) for number, member in enumerate(value)]
    if not isinstance(value, str):
        return value

    def fill(found: re.Match[str]) -> str:
        if found[0].startswith("$$"):
            return found[0][1:]
        variable = _VARIABLE.fullmatch(found[1])
        if variable is None:
            kind = re.match(r"[A-Za-z]*:?", found[1])
            if kind is not None and kind[0] == "claim:":
                raise _wrong(file, place, "holds ${claim:...}, which only headers of a server with a url may hold")
            raise _wrong(file, place, f"holds ${{{kind[0] if kind else ''}...}}, which only other clients fill in")
        name, otherwise = variable.groups()
        if (set_to := environment.get(name) or otherwise) is None:
            raise _wrong(file, place, f"the environment has no variable {name}")
        return set_to

    if _TEMPLATE.search(value):
        raise _wrong(file, place, "holds {{...}}, which only other clients fill in")
    return _PLACEHOLDER.sub(fill, value)


def _wrong(file: Path, place: str, what: str) -> ConfigError:
    return ConfigError(" ".join(f"{SETTING}: {file}, {place}: {what}".split()))
