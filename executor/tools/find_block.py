"""find_block: finds blocks of the agent platform by words."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from backend.chat.protocol.tool_responses import BlockList, JsonObject, NoResults, ToolResponse
from backend.platform.answers import Block, BlockKind
from backend.platform.failures import PlatformFailure
from executor.tools.context import ToolContext
from executor.tools.run_agent import failure_response
from executor.tools.tool import Tool

if TYPE_CHECKING:  # an executor that has no platform starts faster if it is not imported
    from backend.platform.client import Platform

MAX_FOUND = 10
IN_NAME, IN_CATEGORY, IN_DESCRIPTION = 4, 2, 1
"""The points of a word that was found, by the place where it stands."""


class FindBlockArgs(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)

    query: str = Field(min_length=1, max_length=500, description="Words for what the block should do, or its name")


class FindBlock(Tool[FindBlockArgs]):
    name: ClassVar[str] = "find_block"
    description: ClassVar[str] = (
        "Search the blocks of the agent platform, single steps that run_block runs: arithmetic, texts, web requests "
        "and others. Call it before run_block, to learn a block's id and inputs."
    )
    input_type = FindBlockArgs
    idempotent: ClassVar[bool] = True

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    async def run(self, call: FindBlockArgs, context: ToolContext) -> ToolResponse:
        try:
            blocks = await self._platform.blocks()
        except PlatformFailure as failure:
            return failure_response(failure, context.session_id)
        found = best_blocks(blocks, call.query)
        if not found:
            return NoResults(message="No block fits these words.", session_id=context.session_id)
        return BlockList(
            message=f"Found {len(found)} block{'s' if len(found) > 1 else ''}.",
            session_id=context.session_id,
            blocks=[as_json(block) for block in found],
            count=len(found),
        )


def best_blocks(blocks: Iterable[Block], query: str) -> list[Block]:
    """Returns the blocks that fit the words best, at most MAX_FOUND. Only blocks that do something are found."""
    words = set(_words(query))
    actions = [block for block in blocks if block.kind is BlockKind.ACTION]
    named = [block for block in actions if query.strip() in (block.id, block.name)]
    scored = [(_score(words, block), block) for block in actions if block not in named]
    ranked = sorted((one for one in scored if one[0]), key=lambda one: (-one[0], one[1].name))
    return [*named, *(block for _, block in ranked)][:MAX_FOUND]


def _words(text: str) -> list[str]:
    return [word.removesuffix("s") if len(word) > 3 else word for word in re.findall(r"[^\W_]+", text.lower())]


def _score(words: set[str], block: Block) -> int:
    """Returns the points of a block. A word of four letters or more also fits longer words that begin with it."""
    places = (
        (_words(block.name), IN_NAME),
        (_words(" ".join(block.categories)), IN_CATEGORY),
        (_words(block.description), IN_DESCRIPTION),
    )
    return sum(points for word in words for place, points in places if any(_fits(word, one) for one in place))


def _fits(word: str, other: str) -> bool:
    return word == other or (len(word) > 3 and other.startswith(word))


def as_json(block: Block) -> JsonObject:
    """Returns the block as responses show it."""
    return {
        "id": block.id,
        "name": block.name,
        "description": block.description,
        "categories": list(block.categories),
        "input_schema": block.input_schema,
        "output_schema": block.output_schema,
    }
