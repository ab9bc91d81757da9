"""The JSON of an agent: nodes, and links between them. Its authors are untrusted, so every value is checked.

`{id, version, is_active, name, description, nodes: [{id, ...}], links: [{id, source_id, sink_id, ...}], ...}`. Other
members are kept unchanged.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite

import orjson

from backend.chat.models import MAX_DEPTH, Json
from backend.errors import InvalidAgent
from backend.ids import GraphId
from backend.postgres import storable

MAX_NODES, MAX_LINKS = 1_000, 5_000
MAX_BYTES = 1 << 20
MAX_ID, MAX_NAME, MAX_DESCRIPTION = 128, 200, 20_000
"""Characters."""
MAX_PROBLEMS = 20
"""Problems that InvalidAgent names; it only counts the rest."""
UNNAMED = "Unnamed agent"
REDACTED = "[REDACTED]"

_SMALLEST, _LARGEST = -(2**63), 2**64 - 1
_ENDS = ("source_id", "sink_id")
_SECRET = re.compile(
    r"(?:secrets?|tokens?|passwords?|passwd|pwd|passphrases?|credentials?|authorization|auth|bearer|cookies?|jwt"
    r"|(?:api|private|secret|access|signing|encryption)keys?|accesskeyid|connectionstring)"
    r"(?:value|pem|hash|base64)?\d*$"
)
_SAYS_WHAT_VALUE_IS = ("name", "key", "header", "field")
_VALUES_OF_SCHEMA = frozenset({"default", "const", "enum", "examples"})
_NAMED_VALUES = frozenset({"value", "default"})
_IN_TEXT = re.compile(
    r"(?P<before>://)[^/\s:@{]*:[^/\s@{]+(?=@)"  # user and password in a URL
    r"|(?P<bearer>\bbearer\s+)(?=[\w.~+/=-]*\d)[\w.~+/=-]{8,}"
    r"|(?P<member>[?&](?P<name>[\w.-]{1,100})=)[^&\s#{]+",  # a member of a query
    re.IGNORECASE,
)
"""Secrets in a text. What begins with `{` is a place where a template fills one in."""


@dataclass(frozen=True, slots=True)
class AgentGraph:
    """A valid agent. `document` is its complete JSON, ready to be stored and sent."""

    id: GraphId
    name: str
    description: str
    node_count: int
    link_count: int
    document: dict[str, Json]

    def numbered(self, version: int) -> dict[str, Json]:
        """Returns the document with this version number."""
        return {**self.document, "version": version}


def is_agent_id(text: str) -> bool:
    """Returns True if an agent, a node or a link may have this id."""
    return 0 < len(text) <= MAX_ID and text.isprintable()


def parse_agent(value: Json, *, graph_id: GraphId | None = None) -> AgentGraph:
    """Returns the agent that a JSON value describes. Raises InvalidAgent, which lists the problems, and no other error.

    Fills in missing ids (absent, null or empty) and a missing name. NUL and lone surrogates become U+FFFD. `graph_id`
    overrides the id in the value, so that an edited agent keeps its id.
    """
    _check_values(value)
    given: dict[str, Json] = storable(value)
    draft = _Draft()
    nodes = draft.with_ids("node", draft.members(given, "nodes", MAX_NODES, required=True))
    links = draft.with_ids("link", draft.members(given, "links", MAX_LINKS, required=False))
    draft.check_links(links, {node["id"] for node in nodes})
    document: dict[str, Json] = {
        "id": graph_id or draft.id_of("The agent", given),
        "version": _version_of(given),
        "is_active": draft.is_active(given),
        "name": draft.name(given),
        "description": draft.text(given, "description", MAX_DESCRIPTION),
        "nodes": nodes,
        "links": links,
    }
    document |= {key: item for key, item in given.items() if key not in document}
    draft.finish()
    if len(orjson.dumps(document)) > MAX_BYTES:
        raise InvalidAgent([f"It is larger than {MAX_BYTES} bytes."])
    return AgentGraph(
        id=GraphId(document["id"]),
        name=document["name"],
        description=document["description"],
        node_count=len(nodes),
        link_count=len(links),
        document=document,
    )


def redacted(value: Json) -> Json:
    """Returns a copy in which each member with the name of a secret has the value REDACTED, at any depth.

    Such names are `apiKey`, `client-secret` or `TOKEN`. The value of a pair such as `{"name": "Authorization", "value":
    ...}` is redacted, too, and so is the default of an input with such a name. A number whose name ends with "tokens"
    is a count, so it is kept. In texts, passwords in URLs, secrets in queries and bearer tokens are redacted.
    """
    top: list[Json] = [value]
    boxes: list[list[Json] | dict[str, Json]] = [top]
    while boxes:  # no recursion: the depth is unchecked input
        box = boxes.pop()
        named = _secret_members(box) if isinstance(box, dict) else frozenset()
        items: Iterable[tuple[Json, Json]] = list(box.items() if isinstance(box, dict) else enumerate(box))
        for key, item in items:
            if key in named:
                box[key] = REDACTED
            elif isinstance(item, dict | list):
                box[key] = copy = item.copy()
                boxes.append(copy)
            elif isinstance(item, str):
                box[key] = _IN_TEXT.sub(_redacted_match, item)
    return top[0]


def without_secrets(document: Mapping[str, Json]) -> dict[str, Json]:
    """Returns the JSON of an agent for others: redacted, and no REDACTED is left that a run would take for a value.

    A value of a node (`input_default`) with a secret anywhere in it is left out, so that an input asks for it. In the
    agent's `input_schema`, such an input keeps its schema without values, and is required.
    """
    shown: dict[str, Json] = redacted(dict(document))
    for node in shown["nodes"] if isinstance(shown.get("nodes"), list) else ():
        if isinstance(node, dict) and isinstance(node.get("input_default"), dict):
            node["input_default"] = {
                pin: item for pin, item in node["input_default"].items() if not _has_redacted(item)
            }
    if "input_schema" in document:
        shown["input_schema"] = _asking(document["input_schema"])
    return shown


def _asking(schema: Json) -> Json:
    """Returns the schema of inputs, redacted. Inputs whose default was a secret have none, and are required."""
    fields = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(schema, dict) or not isinstance(fields, dict):
        return redacted(schema)
    asked: dict[str, Json] = {}
    required = list(schema["required"]) if isinstance(schema.get("required"), list) else []
    for name, field in fields.items():
        said = redacted({"name": name, **field})["default"] if isinstance(field, dict) and "default" in field else None
        secret = _names_secret(name) or _has_redacted(said)
        if not isinstance(field, dict):
            asked[name] = field if isinstance(field, bool) else {}
            continue
        asked[name] = redacted({key: item for key, item in field.items() if not (secret and key in _VALUES_OF_SCHEMA)})
        if _has_redacted(said) and name not in required:
            required.append(name)
    rest = redacted({key: item for key, item in schema.items() if key not in ("properties", "required")})
    return {**rest, "properties": asked, **({"required": required} if required else {})}


def _has_redacted(value: Json) -> bool:
    boxes = [value]
    while boxes:  # no recursion: the depth is unchecked input
        item = boxes.pop()
        if isinstance(item, str) and REDACTED in item:
            return True
        boxes += item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
    return False


def _secret_members(box: dict[str, Json]) -> frozenset[str]:
    named = {key for key, item in box.items() if _names_secret(key) and not _is_count(key, item)}
    told = (box.get(key) for key in _SAYS_WHAT_VALUE_IS)
    if any(isinstance(name, str) and _names_secret(name) for name in told):
        named |= {key for key in _NAMED_VALUES if box.get(key) is not None}
    return frozenset(named)


def _redacted_match(found: re.Match[str]) -> str:
    name = found["name"]
    if name is not None and not _names_secret(name):
        return found[0]
    return f"{found['before'] or found['bearer'] or found['member']}{REDACTED}"


def _names_secret(name: str) -> bool:
    return _SECRET.search(_letters(name)) is not None


def _is_count(name: str, item: Json) -> bool:
    return isinstance(item, int | float) and _letters(name).endswith("tokens")


def _letters(name: str) -> str:
    """Returns the name in lower case, with its ASCII letters and digits only."""
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def _version_of(given: dict[str, Json]) -> int:
    """Returns the version that the agent gives, if it is valid, or 1. The library numbers it again when it is saved."""
    said = given.get("version")
    return said if type(said) is int and 0 < said < 2**31 else 1


def _check_values(value: Json) -> None:
    """Raises InvalidAgent unless the value is an object of values that every store and client can handle.

    Goes through it level by level, so that no nesting can exhaust the stack.
    """
    if not isinstance(value, dict):
        raise InvalidAgent(["It is not a JSON object."])
    level: list[Json] = [value]
    depth = 0
    while level:
        depth += 1
        below: list[Json] = []
        for one in level:
            if isinstance(one, dict):
                _check_keys(one)
                below += one.values()
            elif isinstance(one, list):
                below += one
            else:
                _check_scalar(one)
        if depth > MAX_DEPTH and any(isinstance(one, dict | list) for one in level):
            raise InvalidAgent([f"It is nested deeper than {MAX_DEPTH} levels."])
        level = below


def _check_keys(one: dict[Json, Json]) -> None:
    if not all(isinstance(key, str) for key in one):
        raise InvalidAgent(["It has a key that is not a string."])


def _check_scalar(one: Json) -> None:
    if one is None or isinstance(one, bool | str):
        return
    if isinstance(one, int) and _SMALLEST <= one <= _LARGEST:
        return
    if not isinstance(one, float) or not isfinite(one):
        raise InvalidAgent(["It has a number that is not finite or is too large, or a value that is not JSON."])


class _Draft:
    """The problems found while an agent is parsed. The methods record them; only `finish` raises."""

    def __init__(self) -> None:
        self._problems: list[str] = []

    def finish(self) -> None:
        """Raises InvalidAgent if there are problems."""
        if rest := self._problems[MAX_PROBLEMS:]:
            self._problems[MAX_PROBLEMS:] = [f"And {len(rest)} more."]
        if self._problems:
            raise InvalidAgent(self._problems)

    def members(self, given: dict[str, Json], name: str, most: int, *, required: bool) -> list[Json]:
        members = given.get(name)
        if members is None and not required:
            return []
        if not isinstance(members, list):
            self._problems.append(f"Its {name} are not a list.")
            return []
        if len(members) > most:
            self._problems.append(f"It has more than {most} {name}.")
            return []
        return members

    def with_ids(self, kind: str, members: list[Json]) -> list[dict[str, Json]]:
        """Returns the members that are objects, and gives an id to those that have none."""
        taken: set[str] = set()
        completed: list[dict[str, Json]] = []
        for place, member in enumerate(members, 1):
            if not isinstance(member, dict):
                self._problems.append(f"The {kind} at place {place} is not an object.")
                continue
            id = self.id_of(f"The {kind} at place {place}", member)
            if id in taken:
                self._problems.append(f'The {kind} at place {place} has the id "{id}" of another {kind}.')
            taken.add(id)
            completed.append({"id": id} | member | {"id": id})
        return completed

    def id_of(self, what: str, given: dict[str, Json]) -> str:
        id = given.get("id")
        if id is None or id == "":
            return str(uuid.uuid4())
        if isinstance(id, str) and is_agent_id(id):
            return id
        self._problems.append(f"{what} has an id that is not a printable string of 1 to {MAX_ID} characters.")
        return str(uuid.uuid4())

    def check_links(self, links: list[dict[str, Json]], nodes: set[str]) -> None:
        for link in links:
            for end in _ENDS:
                target = link.get(end)
                if not isinstance(target, str) or not is_agent_id(target):
                    self._problems.append(f'The link "{link["id"]}" names no node as its {end}.')
                elif target not in nodes:
                    self._problems.append(f'The link "{link["id"]}" has the {end} "{target}", which no node has.')

    def is_active(self, given: dict[str, Json]) -> bool:
        said = given.get("is_active")
        if said is None:
            return True
        if not isinstance(said, bool):
            self._problems.append("Its is_active is neither true nor false.")
        return bool(said)

    def name(self, given: dict[str, Json]) -> str:
        return " ".join(self.text(given, "name", MAX_NAME).split()) or UNNAMED

    def text(self, given: dict[str, Json], name: str, most: int) -> str:
        text = given.get(name)
        if text is None:
            return ""
        if not isinstance(text, str):
            self._problems.append(f"Its {name} is not a string.")
            return ""
        if len(text) > most:
            self._problems.append(f"Its {name} has more than {most} characters.")
        return text
