"""run_block: runs one block of the agent platform."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from backend.chat.flows.run_results import words_for
from backend.chat.protocol.tool_responses import BlockDetails, BlockOutput, ErrorResponse, NeedLogin, ToolResponse
from backend.ids import UserId
from backend.platform.answers import Block, BlockKind
from backend.platform.failures import Failure, PlatformFailure
from executor.tools.context import ToolContext
from executor.tools.find_block import as_json
from executor.tools.platform_inputs import Runnable, response_to_inputs
from executor.tools.run_agent import CALL_LIMIT, UNKNOWN_EFFECT, failure_response
from executor.tools.tool import Tool

if TYPE_CHECKING:  # an executor without a platform starts faster without it
    from backend.platform.client import Platform


INTERRUPTED = "This block was interrupted while it ran; whether it took effect is unknown."


class RunBlockArgs(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)

    block_id: str = Field(min_length=1, max_length=200, description="As find_block gave it")
    inputs: dict[str, Any] = Field(default_factory=dict, description="By name; without any it tells what it takes")


class RunBlock(Tool[RunBlockArgs]):
    name: ClassVar[str] = "run_block"
    description: ClassVar[str] = (
        "Run one block of the agent platform with inputs and return its outputs. Without inputs it answers with what "
        "the block takes. Find its id with find_block."
    )
    input_type = RunBlockArgs
    idempotent: ClassVar[bool] = True
    """A repeated call runs only a block that the platform calls idempotent; `run` sees to that."""
    destructive: ClassVar[bool] = True
    time_limit: ClassVar[float] = CALL_LIMIT

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    async def run(self, call: RunBlockArgs, context: ToolContext) -> ToolResponse:
        session = context.session_id
        if context.user_id is None:
            return NeedLogin(message="Please sign in to run blocks.", session_id=session)
        try:
            blocks = await self._platform.blocks()
        except PlatformFailure as failure:
            return failure_response(failure, session)
        block = next((one for one in blocks if one.id == call.block_id), None)
        if block is None or block.kind is not BlockKind.ACTION:
            words = "There is no such block." if block is None else "This block works only inside an agent."
            code = "block_not_found" if block is None else "block_not_runnable"
            return ErrorResponse(message=words, session_id=session, error=code)
        wanted = Runnable("block", block.id, block.name, block.input_schema)
        if not call.inputs and wanted.required:
            words = f"The block “{block.name}” takes inputs: {', '.join(wanted.fields)}."
            return BlockDetails(message=words, session_id=session, block=as_json(block))
        if (problem := response_to_inputs(wanted, call.inputs, session)) is not None:
            return problem
        if context.again and not block.idempotent:
            return ErrorResponse(message=INTERRUPTED, session_id=session, error=UNKNOWN_EFFECT)
        return await self._output_of(block, call, context, context.user_id)

    async def _output_of(self, block: Block, call: RunBlockArgs, context: ToolContext, user_id: UserId) -> ToolResponse:
        key = f"{context.task_id}_{context.tool_call_id}"
        try:
            outputs = await self._platform.run_block(user_id, block.id, call.inputs, key)
        except PlatformFailure as failure:
            if failure.failure is Failure.CONFLICT:  # the platform was interrupted while it ran the same call
                return ErrorResponse(message=INTERRUPTED, session_id=context.session_id, error=UNKNOWN_EFFECT)
            return failure_response(failure, context.session_id, repeatable=block.idempotent)
        return BlockOutput(
            message=f"The block “{block.name}” has run. {words_for(outputs)}",
            session_id=context.session_id,
            block_id=block.id,
            block_name=block.name,
            outputs=outputs,
        )
