"""The choice of the provider that serves a model. No other module knows all providers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.util import find_spec
from urllib.parse import urlsplit

from pydantic import SecretStr

from backend.config import Settings, variables_of_models
from backend.errors import ConfigError
from backend.model_list import ANTHROPIC_FORMAT, SETTING, ModelEntry, replaced
from executor.llm.extras import NO_EXTRAS, Extras
from executor.llm.model import Model

_USUAL_MODELS = {"api.openai.com": "gpt-6-sol", "openrouter.ai": "openrouter/auto"}


def check_models(settings: Settings) -> None:
    """Checks that no model misses its key, its name or a variable, without the SDKs, which take seconds to import.

    Raises ConfigError with a line for each model that cannot be opened.
    """
    known = settings.models
    if not known.listed:
        _name_of(settings)
        return
    values, faults = variables_of_models(known.variables), []
    for entry in known.entries:
        try:
            _alone(settings, entry, values)
        except ConfigError as fault:
            faults.append(str(fault))
    if faults:
        raise ConfigError("\n".join(faults))


def _name_of(settings: Settings, name: str | None = None) -> str:
    """Returns the model's name at its provider: `name`, or CHAT_MODEL, or the usual one. Raises ConfigError.

    An API key is needed unless a base URL is set. A name is needed if the server at that URL has no usual model.
    """
    chosen = name or settings.chat_model
    if settings.provider == "scripted":
        return chosen
    if settings.provider in ANTHROPIC_FORMAT:
        if settings.provider == "claude_agent" and find_spec("claude_agent_sdk") is None:
            raise ConfigError(
                "CHAT_PROVIDER=claude_agent needs the Claude Agent SDK: pip install 'copilot-chat[claude]'"
            )
        if settings.chat_api_key is None and settings.anthropic_api_key is None and not settings.chat_base_url:
            raise ConfigError("ANTHROPIC_API_KEY (or CHAT_API_KEY) is not set")
        return chosen or "claude-sonnet-5-5"
    if settings.model_api_key is None and settings.model_base_url is None:
        raise ConfigError("CHAT_API_KEY (or OPEN_ROUTER_API_KEY, OPENAI_API_KEY) is not set")
    if not (chosen := chosen or _USUAL_MODELS.get(_host_of(settings.model_base_url), "")):
        where = settings.model_base_url_setting
        raise ConfigError(f"CHAT_MODEL is not set, and the server of {where} has no default model")
    return chosen


@asynccontextmanager
async def open_model(
    settings: Settings, *, name: str | None = None, extras: Extras = NO_EXTRAS
) -> AsyncIterator[Model]:
    """Yields the model that the settings choose. `name` overrides CHAT_MODEL.

    Raises ConfigError if a setting is missing. SDKs are imported here, on first use: each takes about a second and
    many megabytes.
    """
    chosen = _name_of(settings, name)
    match settings.provider:
        case "scripted":
            from executor.llm.scripted import ScriptedModel

            yield ScriptedModel()
        case "openai" | "openai-chat" | "openai-responses" as provider:
            from executor.llm.openai import open_openai

            responses = speaks_responses(provider, settings.model_base_url)
            async with open_openai(settings, chosen, extras=extras, responses=responses) as model:
                yield model
        case "anthropic":
            from executor.llm.anthropic import open_anthropic

            async with open_anthropic(settings, chosen, extras=extras) as model:
                yield model
        case "claude_agent":
            from executor.llm.claude_agent import open_claude_agent

            async with open_claude_agent(settings, chosen, extras=extras) as model:
                yield model


def speaks_responses(provider: str, base_url: str | None) -> bool:
    """Returns True if requests go to the Responses API. Without a choice they do at OpenAI itself (decision 18)."""
    return provider == "openai-responses" or (provider == "openai" and _host_of(base_url) == "api.openai.com")


def _host_of(base_url: str | None) -> str:
    return "api.openai.com" if base_url is None else urlsplit(base_url).hostname or ""


@asynccontextmanager
async def open_listed(settings: Settings, entry: ModelEntry, variables: Mapping[str, str]) -> AsyncIterator[Model]:
    """Yields a model of CHAT_MODELS. `variables` are those of its key and its headers.

    Raises ConfigError if a variable or the key is missing.
    """
    alone, extras = _alone(settings, entry, variables)
    async with open_model(alone, extras=extras) as model:
        yield model


def _alone(settings: Settings, entry: ModelEntry, variables: Mapping[str, str]) -> tuple[Settings, Extras]:
    """Returns the settings and extras with which a model of CHAT_MODELS is opened. Raises as `open_listed`."""
    _check_names(entry)
    key = _key_of(settings, entry, variables)
    headers = {
        name: _secret(entry, f"headers.{name}", value, variables).get_secret_value()
        for name, value in entry.headers.items()
    }
    alone = settings.model_copy(
        update={
            "chat_provider": entry.provider,
            "chat_model": entry.model,
            "chat_base_url": entry.base_url,
            "chat_api_key": key,
            **dict.fromkeys(_OF_OTHERS),
            "chat_first_byte_timeout": entry.first_byte_timeout or settings.chat_first_byte_timeout,
        }
    )
    return alone, Extras(headers, entry.body, frozenset(entry.omit), _efforts(entry))


_IN_RESPONSES = {
    "reasoning_effort": "reasoning.effort",
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
    "verbosity": "text.verbosity",
}
"""Members of chat completions, and their names in the Responses API, which refuses the former in every turn."""


def _check_names(entry: ModelEntry) -> None:
    """Raises ConfigError if a model of the Responses API has members of chat completions."""
    if not speaks_responses(entry.provider, entry.base_url):
        return
    members = {"body": entry.body} | {f"efforts.{level}": sent or {} for level, sent in entry.efforts.items()}
    for where, sent in members.items():
        for name in sorted(_IN_RESPONSES.keys() & sent):
            raise ConfigError(
                f"{SETTING}: model {entry.id}: {where}.{name} is {_IN_RESPONSES[name]} in the Responses API, by which"
                " this model is asked; or set its provider to openai-chat"
            )


_OF_OTHERS = ("open_router_api_key", "openai_api_key", "anthropic_api_key", "openrouter_base_url", "openai_base_url")
"""Settings that would choose another server, or send a server the key of another one."""


def _key_of(settings: Settings, entry: ModelEntry, variables: Mapping[str, str]) -> SecretStr | None:
    """Returns the model's own key, or the one of the setting for its server: keys of settings go to no other server."""
    if entry.key is not None:
        return _secret(entry, "key", entry.key, variables)
    usual = "api.anthropic.com" if entry.provider in ANTHROPIC_FORMAT else "api.openai.com"
    host = urlsplit(entry.base_url).hostname if entry.base_url is not None else usual
    keys = {
        "api.openai.com": ("OPENAI_API_KEY", settings.openai_api_key),
        "openrouter.ai": ("OPEN_ROUTER_API_KEY", settings.open_router_api_key),
        "api.anthropic.com": ("ANTHROPIC_API_KEY", settings.anthropic_api_key),
    }
    name, key = keys.get(host or "", ("", None))
    if name and key is None and entry.provider != "scripted":
        raise ConfigError(f"{SETTING}: model {entry.id}: key: is missing, and {name} is not set")
    return key


def _secret(entry: ModelEntry, place: str, value: SecretStr, variables: Mapping[str, str]) -> SecretStr:
    try:
        text = replaced(value.get_secret_value(), variables)
    except KeyError as missing:
        raise ConfigError(f"{SETTING}: model {entry.id}: {place}: the variable {missing.args[0]} is not set") from None
    if not text.strip():
        raise ConfigError(f"{SETTING}: model {entry.id}: {place}: is empty")
    return SecretStr(text)


def _efforts(entry: ModelEntry) -> dict[str, dict[str, object]]:
    """Returns the members of a request for each level: those of the list, or the provider's usual one.

    OpenAI: `reasoning_effort`, or `reasoning.effort` of the Responses API. Anthropic: `output_config.effort` (Messages
    API, read 2026-11-30).
    """
    return {
        level: _usual_effort(entry, level) if members is None else members for level, members in entry.efforts.items()
    }


def _usual_effort(entry: ModelEntry, level: str) -> dict[str, object]:
    if entry.provider in ANTHROPIC_FORMAT:
        return {"output_config": {"effort": level}}
    if speaks_responses(entry.provider, entry.base_url):
        return {"reasoning": {"effort": level}}
    return {"reasoning_effort": level}
