"""A decoder that turns the stream of OpenAI's Responses API into events.

Source: the types of `openai` 3.54.0 (`types/responses/response_stream_event.py`) and
developers.openai.com/api/docs/guides/streaming-responses (read 2026-11-30). An answer is a list of items: reasoning,
messages and calls. The API tells each text up to four times: in deltas, in the `done` of the part, in the `done` of its
item, and in the last event. What has come once is not read again. Servers differ:

- An `error` event has `code` and `message` at its top, as in the types, or under `error`.
- Some servers send a whole item, or the whole response as the body, without deltas. Some send calls only in the last
  event (NVIDIA-NeMo/Switchyard 777, read 2026-11-30).
- Some leave out `output_index`, or the `status` of the last event, which the name of the event tells too.
- A server without a parser for reasoning has it in the text, between tags (`think_tags.py`).

Items of unknown types and unknown events are ignored.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from backend.chat.models import Json, Usage
from backend.chat.protocol.chunks import FinishReason
from executor.llm.clean_text import PiecewiseCleaner, clean
from executor.llm.events import (
    Finished,
    ModelEvent,
    ReasoningDelta,
    ReasoningEnd,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    UsageSoFar,
)
from executor.llm.failures import ModelCallError, of_error
from executor.llm.history import compact_json
from executor.llm.provider_data import MAX_BYTES, bounded, reasoning_item_data
from executor.llm.sources import find_source
from executor.llm.sse import read_json
from executor.llm.think_tags import ThinkTags
from executor.llm.token_counts import responses_usage

_REASONS: Final[dict[str, FinishReason]] = {
    "completed": "stop", "max_output_tokens": "length", "max_messages": "length", "content_filter": "content-filter",
}  # fmt: skip
_SPEAKS: Final = {
    "response.output_text": "text",
    "response.refusal": "refusal",
    "response.reasoning_summary_text": "summary",
    "response.reasoning_text": "thought",
    "response.function_call_arguments": "arguments",
}
"""Events that end with `.delta` or `.done`, and the kind of part whose text they hold."""
_PART_KINDS: Final = {
    "output_text": "text", "refusal": "refusal", "summary_text": "summary", "reasoning_text": "thought",
}  # fmt: skip
_REASONING: Final = ("summary", "thought")
_MOST_ID = 128  # characters


@dataclass(slots=True, eq=False)
class _Item:
    """An item of the answer. `call` is the index of its tool call. `heard` has the parts of which something came."""

    kind: str
    id: str = ""
    call: int | None = None
    call_id: str | None = None
    """The provider's id of the call."""
    follows: list[str] = field(default_factory=list)
    """Keys of the reasoning right before the call."""
    phase: str | None = None
    heard: set[tuple[str, int]] = field(default_factory=set)
    done: bool = False


class ResponsesDecoder:
    """A `retrying.Decoder`.

    `taken` holds the tool call ids of the prompt. A call that arrives with one of them gets a new id. `owner` names the
    model, to which alone the data in `provider` of its events goes back.
    """

    def __init__(self, taken: set[str], owner: str = "") -> None:
        self.done = False
        self._owner = owner
        self._taken = set(taken)
        self._items: dict[int, _Item] = {}
        self._calls = 0
        self._speech = _Speech()
        self._keys: list[str] = []
        self._room = MAX_BYTES
        self._phase: str | None = None
        self._refused = False
        self._reason: str | None = None
        self._failure: ModelCallError | None = None
        """The failure of the response. `end` raises it, after the usage was passed on."""
        self._usage = Usage()

    @property
    def reason_known(self) -> bool:
        return self._reason is not None

    def feed(self, payload: bytes) -> list[ModelEvent]:
        if payload.strip() == b"[DONE]":
            self.done = True
            return []
        event = read_json(payload)
        events: list[ModelEvent] = []
        if isinstance(event, dict):
            self._read(event, events)
        return events

    def whole(self, document: Json) -> list[ModelEvent]:
        """Reads an answer that is one document: a response, or an error."""
        if not isinstance(document, dict) or not isinstance(document.get("output"), list):
            raise of_error(document)
        events: list[ModelEvent] = []
        self._conclude(document, events)
        return events

    def end(self) -> list[ModelEvent]:
        if self._failure is not None:
            raise self._failure
        if self._reason is None:
            raise ModelCallError("provider_incomplete", again=True, note="no response.completed")
        events: list[ModelEvent] = []
        self._speech.end(events)
        for item in self._items.values():
            self._end_call(item, events)
        reason = _REASONS.get(self._reason, "other")
        if self._calls and reason in ("stop", "other"):
            reason = "tool-calls"
        if self._refused and reason in ("stop", "other"):
            reason = "content-filter"
        events.append(Finished(reason, self._usage))
        return events

    def _read(self, event: dict[str, Json], events: list[ModelEvent]) -> None:
        kind = str(event.get("type"))
        name, _, verb = kind.rpartition(".")
        if name in _SPEAKS and verb in ("delta", "done"):
            self._hear(event, _SPEAKS[name], verb, events)
            return
        match kind:
            case "response.output_item.added":
                self._begin(_place(event), event["item"], events)
            case "response.output_item.done":
                self._finish(_place(event), event["item"], events)
            case "response.content_part.done":
                self._hear_part(self._item_at(event, "message"), _number(event), event["part"], events)
            case "response.output_text.annotation.added":
                self._cite(self._item_at(event, "message"), _number(event), [event.get("annotation")], events)
            case "response.completed" | "response.incomplete" | "response.failed":
                self._conclude(event["response"], events, kind.removeprefix("response."))
            case "error":
                raise of_error(event.get("error") or event)
            case _ if event.get("error"):
                raise of_error(event)

    # --- items --------------------------------------------------------------------------------------------------------

    def _item_at(self, event: dict[str, Json], kind: str) -> _Item:
        """Returns the item of an event. One that was never added has this kind."""
        return self._items.setdefault(_place(event), _Item(kind))

    def _begin(self, place: int, given: dict[str, Json], events: list[ModelEvent]) -> _Item:
        if place in self._items:
            self._end_call(self._items[place], events)  # some servers give all items one index
        item = self._items[place] = _Item(str(given.get("type")), _id_of(given))
        if item.kind == "message":
            self._keys.clear()
            phase = given.get("phase")
            self._phase = clean(phase) if isinstance(phase, str) else None
        elif item.kind == "function_call":
            self._begin_call(item, given, events)
        return item

    def _finish(self, place: int, given: dict[str, Json], events: list[ModelEvent]) -> None:
        """Ends an item. What it holds and did not come before is read from it."""
        item = self._items.get(place)
        if item is None or item.kind != str(given.get("type")) or (item.done and item.id != _id_of(given)):
            item = self._begin(place, given, events)
        if item.done:
            return
        if item.kind == "function_call":
            self._say(item, ("arguments", 0), given.get("arguments"), events)
            self._end_call(item, events)
        elif item.kind in ("message", "reasoning"):
            for member in ("summary", "content"):
                for number, part in enumerate(given.get(member) or ()):
                    self._hear_part(item, number, part, events)
            if item.kind == "reasoning":
                self._end_reasoning(given, events)
        item.done = True

    def _end_reasoning(self, given: dict[str, Json], events: list[ModelEvent]) -> None:
        self._speech.end(events)
        key, data = reasoning_item_data(self._owner, given, self._room)
        if data is not None:
            self._room -= len(compact_json(data.data))
            self._keys.append(key)
        events.append(ReasoningEnd(provider=data))

    def _begin_call(self, item: _Item, given: dict[str, Json], events: list[ModelEvent]) -> None:
        self._speech.end(events)
        own, name = given.get("call_id"), given.get("name")
        item.call_id = own if isinstance(own, str) and 0 < len(own) <= _MOST_ID and own.isprintable() else None
        item.call, self._calls = self._calls, self._calls + 1
        item.follows, self._keys, item.phase = self._keys, [], self._phase
        chosen = item.call_id
        if chosen is None or chosen in self._taken:
            chosen = f"call_{uuid.uuid4().hex[:24]}"
        self._taken.add(chosen)
        events.append(ToolCallStart(item.call, chosen, clean(str(name or "unknown"))))

    def _end_call(self, item: _Item, events: list[ModelEvent]) -> None:
        if item.call is None or item.done:
            return
        item.done = True
        data = {"id": item.call_id, "follows": item.follows, "phase": item.phase}
        known = {name: value for name, value in data.items() if value}
        events.append(ToolCallEnd(item.call, bounded(self._owner, known)))

    # --- texts --------------------------------------------------------------------------------------------------------

    def _hear(self, event: dict[str, Json], kind: str, verb: str, events: list[ModelEvent]) -> None:
        if kind == "arguments" and _place(event) not in self._items:
            return  # its name comes with the whole item
        item, part = self._item_at(event, "reasoning" if kind in _REASONING else "message"), (kind, _number(event))
        if verb == "delta":
            self._say(item, part, event.get("delta"), events, more=True)
        else:
            self._say(item, part, event.get(kind if kind in ("arguments", "refusal") else "text"), events)

    def _hear_part(self, item: _Item, number: int, part: Json, events: list[ModelEvent]) -> None:
        """Reads a whole part of an item."""
        if isinstance(part, dict) and (kind := _PART_KINDS.get(str(part.get("type")))):
            self._say(item, (kind, number), part.get("refusal" if kind == "refusal" else "text"), events)
            self._cite(item, number, part.get("annotations"), events, whole=True)

    def _say(
        self, item: _Item, part: tuple[str, int], text: Json, events: list[ModelEvent], *, more: bool = False
    ) -> None:
        """Adds a piece of a part's text, or its whole text unless pieces of it came before."""
        if not isinstance(text, str) or not text or (part in item.heard and not more):
            return
        kind, _ = part
        if kind == "arguments":
            if item.call is None or item.done or not (text := clean(text)):
                return
            events.append(ToolCallDelta(item.call, text))
        else:
            thinks = kind in _REASONING
            again = thinks and part not in item.heard and any(heard in _REASONING for heard, _ in item.heard)
            self._refused = self._refused or kind == "refusal"
            self._speech.say((item, *part), text, events, thinks=thinks, new_paragraph=again)
        item.heard.add(part)

    def _cite(
        self, item: _Item, number: int, annotations: Json, events: list[ModelEvent], *, whole: bool = False
    ) -> None:
        """Names the pages of a part. The list of the whole part repeats what came one by one."""
        part = ("pages", number)
        if not isinstance(annotations, list) or not annotations or (whole and part in item.heard):
            return
        item.heard.add(part)
        for found in annotations:
            if isinstance(found, dict) and found.get("type") == "url_citation" and (source := find_source(found)):
                events.append(source)

    # --- the end ------------------------------------------------------------------------------------------------------

    def _conclude(self, response: dict[str, Json], events: list[ModelEvent], status: Json = None) -> None:
        """Reads the whole response, which repeats the items, unless it is all that has come or has the only calls.

        `status` is what the event tells of it.
        """
        told, called, output = bool(self._items), self._calls > 0, response.get("output")
        for place, item in enumerate(output if isinstance(output, list) else (), 1 + max(self._items, default=-1)):
            if not told or (not called and isinstance(item, dict) and item.get("type") == "function_call"):
                self._finish(place, item, events)
        usage = response.get("usage")
        if isinstance(usage, dict):
            self._usage = responses_usage(usage)
            events.append(UsageSoFar(self._usage))
        status = response.get("status") or status
        if status == "failed" or response.get("error"):
            self._failure = of_error(response.get("error") or {"message": "the response failed"})
            self.done = True
            return
        if status == "incomplete":
            details = response.get("incomplete_details")
            why = details.get("reason") if isinstance(details, dict) else None
            self._reason = str(why or status)
        elif status == "completed":
            self._reason = "completed"
        self.done = self._reason is not None


class _Speech:
    """The text and the reasoning that follow each other. `key` names a part, so that a new one is noticed."""

    def __init__(self) -> None:
        self._mender = PiecewiseCleaner()
        self._tags = ThinkTags()
        self._key: tuple[_Item, str, int] | None = None
        self._write: Callable[[str, list[ModelEvent]], None] = self._write_text
        self._thinks_in_text = False

    def say(
        self,
        key: tuple[_Item, str, int],
        text: str,
        events: list[ModelEvent],
        *,
        thinks: bool,
        new_paragraph: bool,
    ) -> None:
        if key != self._key:
            self.turn_to(key, events)
            if thinks:
                self._end_tags(events)
            self._write = self._write_thought if thinks else self._write_text
        text = self._mender.mend(text)
        if text:
            self._write(f"\n\n{text}" if new_paragraph else text, events)

    def turn_to(self, key: tuple[_Item, str, int] | None, events: list[ModelEvent]) -> None:
        """Ends the part that is open."""
        self._key = key
        if rest := self._mender.end():
            self._write(rest, events)

    def end(self, events: list[ModelEvent]) -> None:
        self.turn_to(None, events)
        self._end_tags(events)

    def _write_thought(self, text: str, events: list[ModelEvent]) -> None:
        events.append(ReasoningDelta(text))

    def _write_text(self, text: str, events: list[ModelEvent]) -> None:
        self._split(self._tags.feed(text), events)

    def _end_tags(self, events: list[ModelEvent]) -> None:
        """Releases what was held back as the beginning of a tag."""
        self._split(self._tags.end(), events)
        if self._thinks_in_text:
            self._thinks_in_text = False
            events.append(ReasoningEnd())

    def _split(self, pieces: list[tuple[bool, str]], events: list[ModelEvent]) -> None:
        for is_thought, piece in pieces:
            if self._thinks_in_text and not is_thought:
                events.append(ReasoningEnd())
            self._thinks_in_text = is_thought
            events.append(ReasoningDelta(piece) if is_thought else TextDelta(piece))


def _id_of(item: dict[str, Json]) -> str:
    return str(item.get("id") or item.get("call_id") or "")


def _place(event: dict[str, Json]) -> int:
    place = event.get("output_index")
    return place if isinstance(place, int) else 0


def _number(event: dict[str, Json]) -> int:
    """Returns the number of a part within its item."""
    number = event.get("content_index", event.get("summary_index"))
    return number if isinstance(number, int) else 0
