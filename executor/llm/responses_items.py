"""A prompt's messages as the input items of OpenAI's Responses API.

Item ids of messages and calls are not sent: with `store: false` the server does not know them, and a call whose id is
sent needs its reasoning. Reasoning goes back whole, right before what followed it, since the API refuses it elsewhere.
Sources: `openai` 3.54.0, `ResponseInputItemParam`; openai/codex, `codex-rs/protocol/src/models.rs`, and vercel/ai,
`convert-to-openai-responses-input.ts`, which also send calls without ids (read 2026-11-30).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from backend.chat.models import (
    Json,
    NewMessage,
    PromptFile,
    ReasoningPart,
    Role,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from executor.llm.files import UNREADABLE, data_url_of, is_audio, is_picture, line_of
from executor.llm.history import compact_json, result_text
from executor.llm.model import Prompt
from executor.llm.openai_messages import after_system
from executor.llm.own_history import HistoryForm, one_call_each, written_for

Item = dict[str, Json]


def responses_items(
    prompt: Prompt,
    owner: str = "",
    form: HistoryForm = HistoryForm.OWN,
    refuses: Callable[[str], bool] = lambda _: False,
) -> list[Item]:
    """Returns the input items for the model `owner`. `refuses` tells what its server does not accept."""
    own = written_for(prompt.messages, owner, form)
    messages = one_call_each(own) if refuses("parallel calls") else own
    reasoning = _Reasoning(messages)
    items = [item for message in messages for item in _items(message, reasoning)]
    if prompt.system.strip() and refuses("system"):
        items[0]["content"] = after_system(prompt.system, items[0]["content"], "input_text")
    return items


def _items(message: NewMessage, reasoning: _Reasoning) -> Iterator[Item]:
    match message.role:
        case Role.USER:
            texts = [part.text for part in message.parts if isinstance(part, TextPart)]
            blocks = [_file(part) for part in message.parts if isinstance(part, PromptFile)]
            said = "\n\n".join(texts)
            said_too = [{"type": "input_text", "text": said}] if said else []
            yield {"role": "user", "content": [*blocks, *said_too] if blocks else said}
        case Role.TOOL:
            result = next(part for part in message.parts if isinstance(part, ToolResultPart))
            lines = [result_text(result), *(part.text for part in message.parts if isinstance(part, TextPart))]
            output: Json = "\n".join(lines)
            if files := [_file(part) for part in message.parts if isinstance(part, PromptFile)]:
                output = [{"type": "input_text", "text": output}, *files]
            yield {"type": "function_call_output", "call_id": result.tool_call_id, "output": output}
        case Role.ASSISTANT:
            yield from _said(message, reasoning)


def _file(file: PromptFile) -> Item:
    """Returns the block of a file. Source: `openai` 3.54.0, `ResponseInputImageParam`, `ResponseInputFileParam`."""
    if is_picture(file):
        return {"type": "input_image", "image_url": data_url_of(file), "detail": "auto"}
    if is_audio(file):  # this API takes no sounds
        return {"type": "input_text", "text": line_of(file.file, UNREADABLE)}
    return {"type": "input_file", "filename": file.file.filename, "file_data": data_url_of(file)}


def _said(message: NewMessage, reasoning: _Reasoning) -> Iterator[Item]:
    """Yields the items of one response. Reasoning that nothing followed, as in a stopped answer, is left out."""
    phase = reasoning.phase_of(message)
    waiting: list[Item] = []
    for part in message.parts:
        match part:
            case ReasoningPart():
                waiting += reasoning.before_text(part)
            case TextPart():
                yield from waiting
                waiting = []
                yield {"role": "assistant", "content": part.text, **phase}
            case ToolCallPart():
                yield from reasoning.before_call(part)
                yield {
                    "type": "function_call",
                    "call_id": part.tool_call_id,
                    "name": part.tool_name,
                    "arguments": compact_json(part.input),
                }


class _Reasoning:
    """The items of reasoning in a history, and their places: before the calls that name them, or before texts.

    The history has the calls of a response behind its texts, whatever their order was.
    """

    def __init__(self, messages: Sequence[NewMessage]) -> None:
        self._items: dict[str, Item] = {}
        self._before_calls: set[str] = set()
        self._has_phases = False
        for part in (part for message in messages for part in message.parts):
            if isinstance(part, ReasoningPart) and part.provider is not None and "item" in part.provider.data:
                self._items[part.provider.data["key"]] = part.provider.data["item"]
            elif isinstance(part, ToolCallPart):
                self._before_calls.update(_data(part).get("follows", ()))
                self._has_phases = self._has_phases or "phase" in _data(part)

    def before_text(self, part: ReasoningPart) -> list[Item]:
        key = part.provider.data.get("key", "") if part.provider is not None else ""
        return [] if key in self._before_calls else self._take([key])

    def before_call(self, part: ToolCallPart) -> list[Item]:
        return self._take(_data(part).get("follows", ()))

    def phase_of(self, message: NewMessage) -> Item:
        """Returns the `phase` of a message, if the model gives phases: without it such models may stop too early.

        The phase of a last answer is always the same, so it is not stored.
        """
        calls = [part for part in message.parts if isinstance(part, ToolCallPart)]
        if not calls:
            return {"phase": "final_answer"} if self._has_phases else {}
        phase = _data(calls[0]).get("phase")
        return {"phase": phase} if phase else {}

    def _take(self, keys: Sequence[str]) -> list[Item]:
        return [self._items.pop(key) for key in keys if key in self._items]


def _data(call: ToolCallPart) -> dict[str, Json]:
    return call.provider.data if call.provider is not None else {}
