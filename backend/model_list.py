"""The models among which callers choose: the list of CHAT_MODELS, or the one model of the other settings.

Every process reads the list; only executors open the models, and only they need the keys.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    field_validator,
)

from backend.errors import ConfigError
from backend.setting_types import HttpUrl

SETTING = "CHAT_MODELS"
MAX_MODELS = 64
MAX_FILE_BYTES = 1_000_000
ONLY_ID = "default"
"""The id of the one model of the other settings. It stays the same when CHAT_MODEL changes."""
DEFAULT_NAME = "copilot"
"""The name of the default model at `/v1`, whichever it is: clients keep it in their settings."""
ListedProvider: TypeAlias = Literal[
    "openai", "openai-chat", "openai-responses", "anthropic", "claude_agent", "scripted"
]
ANTHROPIC_FORMAT = ("anthropic", "claude_agent")
"""The providers that speak Anthropic's format."""
ModelId: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,99}$")]
Effort: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
Accepted: TypeAlias = Literal["image", "pdf", "audio"]
_SEES = re.compile(
    r"gpt-4o|gpt-4\.1|gpt-4-turbo|gpt-[5-9]|\bo[134]\b|claude-(?!2|instant)|gemini|pixtral|llava|gemma-?[3-9]|llama-?4"
    r"|[-_]vl\b|vision|omni|mistral-(?:small|medium|large)-[3-9]|grok-[4-9]|minicpm-v|internvl|kimi-k[3-9]"
)
"""Names of models that take pictures, as their providers document them (read 2026-11-30)."""
_HEARS = re.compile(r"gemini|voxtral|\baudio\b|omni")
"""Names of models that take sounds. Only the chat completions format can send sounds here."""
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_VARIABLE = re.compile(r"\$\{([A-Za-z_]\w*)\}")
_OWN_MEMBERS = frozenset({"model", "messages", "input", "stream", "tools", "system", "instructions"})
"""Members of a request that `body`, `omit` and `efforts` must leave alone."""


class _Given(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Price(_Given):
    """Prices of a million tokens. Tokens read from a cache cost `cached`, or `input` if that is not set."""

    input: float = Field(ge=0, le=1e6, allow_inf_nan=False)
    output: float = Field(ge=0, le=1e6, allow_inf_nan=False)
    cached: float | None = Field(None, ge=0, le=1e6, allow_inf_nan=False)
    currency: str = Field("USD", pattern=r"^[A-Z]{3}$")


class ModelEntry(_Given):
    """One model. A member that is `None` has the value of the setting with the same meaning, if there is one. `efforts`
    are levels by name, from the lowest, each with the members that a request for it gets; a level without members gets
    the provider's usual one. `variables` in texts (`${NAME}`) are not replaced yet.
    """

    id: ModelId
    label: Annotated[str, StringConstraints(min_length=1, max_length=100)] | None = None
    provider: ListedProvider = "openai"
    model: Annotated[str, StringConstraints(max_length=300)] = ""
    base_url: HttpUrl | None = None
    key: SecretStr | None = None
    context_tokens: int | None = Field(None, ge=2_000, le=2**31 - 1)
    max_output_tokens: int | None = Field(None, ge=1, le=2**31 - 1)
    first_byte_timeout: float | None = Field(None, gt=0, le=7_200)
    price: Price | None = None
    efforts: dict[Effort, dict[str, Any] | None] = Field({}, max_length=16)
    effort: Effort | None = None
    images: bool = False
    accepts: list[Accepted] | None = Field(None, max_length=3)
    headers: dict[str, SecretStr] = Field({}, max_length=50)
    body: dict[str, Any] = {}
    omit: list[str] = Field([], max_length=50)
    fallback: ModelId | None = None
    hidden: bool = False
    default: bool = False

    @field_validator("efforts", mode="before")
    @classmethod
    def _by_level(cls, given: Any) -> Any:
        """Accepts a list of levels as well."""
        is_list = isinstance(given, list) and all(isinstance(level, str) for level in given)
        return dict.fromkeys(given) if is_list else given

    @property
    def shown(self) -> str:
        """The name that users read."""
        return self.label or self.id

    @property
    def variables(self) -> set[str]:
        """The names of the variables that its key and its headers use."""
        secrets = [*self.headers.values(), *([self.key] if self.key is not None else [])]
        return {name for secret in secrets for name in _VARIABLE.findall(secret.get_secret_value())}

    def knows(self, effort: str | None) -> bool:
        return effort is None or effort in self.efforts


@dataclass(frozen=True, slots=True)
class ModelList:
    """The models in the operator's order. `title` is the model that names sessions; None: their first words name them.
    `summary` is the model that summarises conversations; None: the one that answers does.
    """

    entries: tuple[ModelEntry, ...]
    title: ModelEntry | None = None
    summary: ModelEntry | None = None
    listed: bool = True
    """False if the one model comes from the other settings."""

    @property
    def default(self) -> ModelEntry:
        return next((entry for entry in self.entries if entry.default), self.shown[0])

    @property
    def shown(self) -> list[ModelEntry]:
        """The models that callers may choose."""
        return [entry for entry in self.entries if not entry.hidden]

    @property
    def variables(self) -> set[str]:
        return {name for entry in self.entries for name in entry.variables}

    def find(self, id: str | None) -> ModelEntry | None:
        """Returns the model that a caller may choose by this id."""
        return next((entry for entry in self.shown if entry.id == id), None)

    def fallback_of(self, entry: ModelEntry) -> ModelEntry | None:
        return next((other for other in self.entries if other.id == entry.fallback), None)


def known_to_accept(provider: str, base_url: str | None, model: str) -> frozenset[str]:
    """Returns the kinds of files that a model of this name takes. An empty name means the provider's default model.

    A model that takes pictures also takes PDFs if its server is OpenAI's own or speaks Anthropic's format.
    """
    if provider == "scripted":
        return frozenset()
    hears = frozenset({"audio"} if provider in ("openai", "openai-chat") and _HEARS.search(model.lower()) else ())
    official = base_url is None or urlsplit(base_url).hostname in ("api.openai.com", "api.anthropic.com")
    sees = _SEES.search(model.lower()) is not None if model else official
    if not sees:
        return hears
    return hears | frozenset({"image", "pdf"} if official or provider in ANTHROPIC_FORMAT else {"image"})


def replaced(text: str, variables: Mapping[str, str]) -> str:
    """Returns the text with the values of its variables. Raises KeyError with the name of one that is not set."""
    return _VARIABLE.sub(lambda found: variables[found[1]], text)


def read_models(setting: str, *, title: str | None = None, summary: str | None = None) -> ModelList:
    """Returns the models of CHAT_MODELS: a JSON list, or the path of a file that holds one. `title` and `summary` are
    ids of models in it.

    Raises ConfigError with a line for each fault. No line quotes a value, which may be a key.
    """
    document = _parse(setting if setting.lstrip().startswith("[") else _text_of(Path(setting)))
    if not isinstance(document, list) or not 1 <= len(document) <= MAX_MODELS:
        raise ConfigError(f"{SETTING}: must be a list of 1 to {MAX_MODELS} models")
    faults: list[str] = []
    entries: list[ModelEntry] = []
    for place, given in enumerate(document):
        entry = _entry(place, given, faults)
        if entry is not None:
            entries.append(entry)
    used = {"CHAT_TITLE_MODEL": title, "CHAT_SUMMARY_MODEL": summary}
    faults += _faults_between(entries, used, _ids_in(document))
    if faults:
        raise ConfigError("\n".join(f"{SETTING}: {fault}" for fault in faults))
    by_id = {entry.id: entry for entry in entries}
    return ModelList(tuple(entries), by_id.get(title or ""), by_id.get(summary or ""))


def _text_of(file: Path) -> str:
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{SETTING}: {file} has more than {MAX_FILE_BYTES} bytes")
        return file.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # ValueError: no text in UTF-8, or a NUL in the path
        why = error.strerror if isinstance(error, OSError) else "not a file of text in UTF-8"
        raise ConfigError(f"{SETTING}: the file cannot be read: {why}") from None


def _parse(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_each_once)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{SETTING}: line {error.lineno}, column {error.colno}: not valid JSON") from None
    except RecursionError:
        raise ConfigError(f"{SETTING}: nested too deeply") from None


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"{SETTING}: {twice[:50]!r} appears twice in one object")
    return dict(pairs)


_ENTRY = TypeAdapter(ModelEntry)


def _entry(place: int, given: Any, faults: list[str]) -> ModelEntry | None:
    id = given.get("id") if isinstance(given, dict) else None
    where = f"model {place + 1}" + (f" ({id[:100]})" if isinstance(id, str) and id.isprintable() else "")
    try:
        entry = _ENTRY.validate_python(given)
    except ValidationError as error:
        for fault in error.errors(include_input=False, include_url=False):
            name = ".".join(str(part) for part in fault["loc"])
            said = fault["msg"].removeprefix("Value error, ")
            faults.append(f"{where}: {name}: {said}" if name else f"{where}: {said}")
        return None
    faults += [f"{where}: {fault}" for fault in _faults_of(entry)]
    return entry


def _faults_of(entry: ModelEntry) -> Iterator[str]:
    if not entry.model and entry.provider != "scripted":
        yield "model: is missing"
    if entry.provider == "claude_agent" and (entry.body or entry.omit):
        yield "body and omit: the Claude Agent SDK writes the requests itself"
    if entry.provider == "claude_agent" and any(members is not None for members in entry.efforts.values()):
        yield "efforts: the Claude Agent SDK takes levels without members"
    if entry.provider == "anthropic" and "max_tokens" in entry.omit:
        yield "omit: max_tokens is required in Anthropic's format"
    if not entry.knows(entry.effort):
        yield "effort: is not one of efforts"
    if entry.default and entry.hidden:
        yield "default: a hidden model cannot be the default"
    for name, value in entry.headers.items():
        if _HEADER.fullmatch(name) is None or not value.get_secret_value().isprintable():
            yield f"headers.{name[:50]}: not a valid header"
    levels = {f"efforts.{level}": members or {} for level, members in entry.efforts.items()}
    for where, members in {"body": entry.body, "omit": dict.fromkeys(entry.omit), **levels}.items():
        for name in sorted(_OWN_MEMBERS & members.keys()):
            yield f"{where}: {name} cannot be changed"


def _ids_in(document: list[Any]) -> list[str]:
    ids = (given.get("id") if isinstance(given, dict) else None for given in document)
    return [id if isinstance(id, str) else "" for id in ids]


def _faults_between(
    entries: Sequence[ModelEntry], used: Mapping[str, str | None], all_ids: Sequence[str]
) -> Iterator[str]:
    """Yields the faults of the list. `entries` has the models that can be read, `all_ids` the ids of all models, "" for
    one without an id.
    """
    ids = [id for id in all_ids if id and id.isprintable()]
    complete = len(entries) == len(all_ids)
    for id in sorted({id for id in ids if ids.count(id) > 1}):
        yield f"id: {id[:100]} appears twice"
    if sum(entry.default for entry in entries) > 1:
        yield "default: more than one model is the default"
    if complete and all(entry.hidden and not entry.default for entry in entries):
        yield "hidden: every model is hidden"
    elif complete and DEFAULT_NAME in ids and ModelList(tuple(entries)).default.id != DEFAULT_NAME:
        yield f"id: {DEFAULT_NAME} is the name of the default model at /v1; no other model may have it"
    for entry in entries:
        if entry.fallback == entry.id or (entry.fallback is not None and entry.fallback not in all_ids):
            yield f"model {entry.id}: fallback: is not the id of another model"
    for setting, named in used.items():
        if named is not None and named not in all_ids:
            yield f"{setting} is not the id of a model in the list"
