"""The cache of prompt prefixes of a fake server, as the providers document theirs (read 2026-11).

OpenAI, "Prompt caching": the longest beginning shared with an earlier request is read from the cache, tools first.
Anthropic, "Prompt caching": the order is tools, system, messages; at most four marks (`cache_control`); a request
writes the beginning up to each mark; it reads the longest beginning that was written and ends at one of its marks or at
most 20 blocks before it. A token is 4 characters here.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

LOOK_BACK = 20
MOST_MARKS = 4


class PrefixCache:
    def __init__(self) -> None:
        self._written: set[str] = set()

    def openai(self, body: dict[str, Any]) -> tuple[int, int]:
        """Returns the tokens of a prompt, and how many of them are read from the cache."""
        blocks = [*body.get("tools", ()), *body["messages"]]
        places = range(len(blocks))
        return self._count(blocks, readable=set(places), written=set(places))

    def responses(self, body: dict[str, Any]) -> tuple[int, int]:
        """Does the same as `openai` for a request of the Responses API."""
        system = {"role": "system", "content": body.get("instructions", "")}
        return self.openai({"tools": body.get("tools", ()), "messages": [system, *body["input"]]})

    def anthropic(self, body: dict[str, Any]) -> tuple[int, int]:
        """Does the same as `openai` for a request with marks."""
        blocks = anthropic_blocks(body)
        marks = {place for place, block in enumerate(blocks) if "cache_control" in block}
        readable = {place for mark in marks for place in range(max(0, mark - LOOK_BACK), mark + 1)}
        return self._count(blocks, readable=readable, written=marks)

    def _count(self, blocks: list[Any], *, readable: set[int], written: set[int]) -> tuple[int, int]:
        tokens = cached = 0
        prefix = hashlib.sha256()
        new: set[str] = set()
        for place, block in enumerate(blocks):
            plain = {name: value for name, value in block.items() if name != "cache_control"}
            text = json.dumps(plain)
            tokens += len(text) // 4
            prefix.update(text.encode())
            if place in readable and prefix.hexdigest() in self._written:
                cached = tokens
            if place in written:
                new.add(prefix.hexdigest())
        self._written |= new
        return tokens, cached


def anthropic_blocks(body: dict[str, Any]) -> list[Any]:
    system = body.get("system", [])
    system = [{"type": "text", "text": system}] if isinstance(system, str) else system
    said = [{"role": message["role"], **block} for message in body["messages"] for block in message["content"]]
    return [*body.get("tools", ()), *system, *said]
