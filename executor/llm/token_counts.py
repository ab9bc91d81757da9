"""Token counts, as providers give them. What is missing or no number counts as 0."""

from __future__ import annotations

from backend.chat.models import Json, Usage

_MOST = 10**12


def openai_usage(usage: dict[str, Json]) -> Usage:
    """Reads `usage` of an OpenAI-compatible server.

    The cached tokens stand in `prompt_tokens_details`, at the top (Kimi), or under DeepSeek's or Anthropic's name.
    """
    prompt, completion = _inner(usage, "prompt_tokens_details"), _inner(usage, "completion_tokens_details")
    cached = (usage.get(name) for name in ("cached_tokens", "prompt_cache_hit_tokens", "cache_read_input_tokens"))
    return Usage(
        input_tokens=count(usage.get("prompt_tokens")),
        output_tokens=count(usage.get("completion_tokens")),
        reasoning_tokens=count(completion.get("reasoning_tokens")),
        cached_tokens=count(prompt.get("cached_tokens")) or next(filter(None, map(count, cached)), 0),
    )


def anthropic_usage(usage: dict[str, Json]) -> Usage:
    """Reads the running totals of Anthropic's stream. Cached input is not part of `input_tokens` there."""
    cached = count(usage.get("cache_read_input_tokens"))
    written = count(usage.get("cache_creation_input_tokens"))
    return Usage(
        input_tokens=count(usage.get("input_tokens")) + cached + written,
        output_tokens=count(usage.get("output_tokens")),
        reasoning_tokens=count(_inner(usage, "output_tokens_details").get("thinking_tokens")),
        cached_tokens=cached,
    )


def responses_usage(usage: dict[str, Json]) -> Usage:
    """Reads `usage` of OpenAI's Responses API. Cached input is part of `input_tokens` there."""
    return Usage(
        input_tokens=count(usage.get("input_tokens")),
        output_tokens=count(usage.get("output_tokens")),
        reasoning_tokens=count(_inner(usage, "output_tokens_details").get("reasoning_tokens")),
        cached_tokens=count(_inner(usage, "input_tokens_details").get("cached_tokens")),
    )


def count(value: Json) -> int:
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else 0
    return int(number) if 0 < number < _MOST else 0


def _inner(usage: dict[str, Json], name: str) -> dict[str, Json]:
    found = usage.get(name)
    return found if isinstance(found, dict) else {}
