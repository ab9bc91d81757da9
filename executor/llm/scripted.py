"""A provider without a network that answers by rules, word by word. It runs without a key and a base URL, and in demos.

It follows the commands in the last user message, in their order. A command stands at the beginning of a line:

    /stream N [DELAY_MS]    sends N text deltas, `0 `, `1 `, … `N-1 `, with that delay before each (default 0)
    /reason TEXT            thinks the text, word by word
    /source URL [TITLE]     cites that page; a step that only cites and thinks answers as if there were no command
    /say TEXT               says the text, word by word
    /markdown               shows the kinds of Markdown that a page renders: a heading, a list, a table, code
    /tool NAME JSON         calls that tool with the JSON as it is; several are parallel calls of one step
    /fail                   raises a provider error
    /finish REASON [TEXT]   ends the answer for that reason of the AI SDK, with the text as the provider's explanation
    /then                   begins the next step, which runs when the tools have answered

“Create an agent that …”, “Change the agent ID like this: …” and “Customize the template ID like this: …” call the tool
for that, if there is one; so do “Run it with 2 and 3”, “Run the agent ID with {"a": 2}” and “Run it every morning at
8”. A step without commands comments on the results of the step before. “What can you do?” is answered with such
messages, and another message without commands with a sentence or two. A summary has the first words of the user's
messages.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncGenerator, Container, Iterator, Sequence
from dataclasses import replace

import orjson

from backend.chat.models import Json, NewMessage, ReasoningPart, Role, TextPart, ToolCallPart, ToolResultPart, Usage
from backend.errors import ProviderError
from backend.files.kinds import Kind
from executor.llm.events import (
    Finished,
    ModelEvent,
    ReasoningDelta,
    ReasoningEnd,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
)
from executor.llm.history import NOTE_CLOSES, NOTE_OPENS, SUMMARY_CLOSES, SUMMARY_OPENS
from executor.llm.model import Prompt
from executor.llm.scripted_runs import requested_run
from executor.llm.sources import find_source
from executor.llm.summaries import REQUEST

WORD_DELAY = 0.01  # seconds
EVENTS_PER_BREATH = 32
"""Events without a delay after which other jobs may run."""
MAX_STREAM = 1_000_000
"""Most deltas of one `/stream`."""
MAX_DELAY_MS = 60_000
_COMMAND = re.compile(r"^/(stream|reason|source|say|markdown|tool|fail|finish|then)(?: +(.*))?$", re.MULTILINE)
_REQUESTS = {
    tool: re.compile(rf"(?:please )?{words}", re.IGNORECASE | re.DOTALL)
    for tool, words in {
        "create_agent": "(?:create|make|build)(?: me)? an agent (?:that|which|to) (?:does this: )?(?P<description>.+)",
        "edit_agent": r"change the agent (?P<agent_id>\S+) (?:like this: )?(?P<changes>.+)",
        "customize_agent": r"customize the template (?P<agent_id>\S+) (?:like this: )?(?P<modifications>.+)",
    }.items()
}
_CALL = re.compile(r"behind the call (\S+) of the tool")
_WORD = re.compile(r"\s*\S+\s*")
_STILL_RUNNING = ("operation_started", "operation_in_progress")
_JSON_PIECE = 12  # characters of a delta
_MARKDOWN = """\
## What Markdown can be

A *paragraph* with **bold** words, `code` in a line, and [a link](https://example.org).

1. A list
2. of numbers
   - with another one in it

| a table | of three | columns |
|---|:-:|--:|
| left | middle | 1 |
| left | middle | 20 |

> What somebody else said.

```python
def code(of: str, lines: int = 2) -> str:
    return f"{of} in {lines} lines"
```

- [x] done
- [ ] to do

That is all.
"""
_ASKS_FOR_HELP = re.compile(r"(?:what can (?:you|i) do|help)\b", re.IGNORECASE)
_HELP = (
    "I am the scripted model, which answers while no API key is set. Write “Create an agent that adds two numbers”, "
    "then “Run it with 2 and 3” and “Run it every morning at 8”. /markdown shows what an answer can look like. Set an "
    "API key to get answers from a language model."
)
_NO_NUMBER = "/stream takes a whole number above 0, optionally followed by a delay in milliseconds. "


class ScriptedModel:
    """A `Model` that follows the rules of this module. `word_delay` is in seconds."""

    name = "scripted"

    def __init__(self, *, word_delay: float = WORD_DELAY) -> None:
        self._word_delay = word_delay

    def room(self, prompt: Prompt) -> int | None:
        """See `Model.room`."""
        return None

    def refused_kinds(self) -> frozenset[Kind]:
        """See `Model.refused_kinds`."""
        return frozenset()

    async def stream(self, prompt: Prompt) -> AsyncGenerator[ModelEvent, None]:
        """See `Model.stream`. Even without a delay, other jobs may run after every EVENTS_PER_BREATH events."""
        said = thought = 0
        called = False
        end = Finished("stop", Usage())
        for breath, (event, delay) in enumerate(self._events(prompt), 1):
            if delay > 0 or breath % EVENTS_PER_BREATH == 0:
                await asyncio.sleep(delay)
            if isinstance(event, Finished):
                end = event
                continue
            said += isinstance(event, TextDelta)
            thought += isinstance(event, ReasoningDelta)
            called = called or isinstance(event, ToolCallStart)
            yield event
        usage = Usage(input_tokens=_words_of(prompt), output_tokens=said + thought, reasoning_tokens=thought)
        yield replace(end, reason="tool-calls" if called else end.reason, usage=usage)

    def _events(self, prompt: Prompt) -> Iterator[tuple[ModelEvent, float]]:
        """Yields all events but the last, each with the seconds to wait before it."""
        asked, since = _last_question(prompt.messages)
        rounds = sum(message.role is Role.ASSISTANT for message in since)
        commands = [(match[1], (match[2] or "").strip()) for match in _COMMAND.finditer(asked)]
        script = _steps(commands)
        if rounds < len(script):
            yield from self._perform(script[rounds], asked)
        elif (call := requested_run(asked, prompt.messages, since, {tool.name for tool in prompt.tools})) is not None:
            yield from _call(0, call)
        elif rounds:
            yield from self._say(_comment(since))
        elif REQUEST in asked:
            yield from self._say(_summary(prompt.messages))
        elif (call := _requested_call(asked, {tool.name for tool in prompt.tools})) is not None:
            yield from _call(0, call)
        elif asked.startswith(NOTE_OPENS):
            yield from self._say(_comment_on_note(asked, prompt.messages))
        else:
            yield from self._say(_answer(asked))

    def _perform(self, commands: Sequence[tuple[str, str]], asked: str) -> Iterator[tuple[ModelEvent, float]]:
        calls: list[str] = []
        if all(verb in ("reason", "source") for verb, _ in commands):
            commands = [*commands, ("say", _answer(asked))]
        for verb, rest in commands:
            match verb:
                case "stream":
                    yield from _count(rest)
                case "reason":
                    yield from ((ReasoningDelta(word), self._word_delay) for word in _WORD.findall(rest))
                    yield ReasoningEnd(), 0
                case "source":
                    url, _, title = rest.partition(" ")
                    if (source := find_source({"url": url, "title": title})) is not None:
                        yield source, 0
                case "say":
                    yield from self._say(rest)
                case "markdown":
                    yield from self._say(_MARKDOWN)
                case "finish" if (end := _end(*rest.partition(" ")[::2])) is not None:
                    yield end, 0
                case "finish":
                    pass
                case "fail":
                    raise ProviderError("The scripted model was asked to fail.", code="provider_error")
                case _:
                    calls.append(rest)
        for index, call in enumerate(calls):
            yield from _call(index, call)

    def _say(self, text: str) -> Iterator[tuple[ModelEvent, float]]:
        return ((TextDelta(word), self._word_delay) for word in _WORD.findall(text))


def _steps(commands: Sequence[tuple[str, str]]) -> list[list[tuple[str, str]]]:
    if not commands:
        return []
    steps: list[list[tuple[str, str]]] = [[]]
    for command in commands:
        if command[0] == "then":
            steps.append([])
        else:
            steps[-1].append(command)
    return steps


def _count(rest: str) -> Iterator[tuple[ModelEvent, float]]:
    numbers = [int(word) for word in rest.split() if word.isdecimal() and len(word) < 10]
    if not numbers or not numbers[0]:
        yield from ((TextDelta(word), 0) for word in _WORD.findall(_NO_NUMBER))
        return
    count = min(numbers[0], MAX_STREAM)
    delay = min(numbers[1], MAX_DELAY_MS) / 1000 if len(numbers) > 1 else 0
    yield from ((TextDelta(f"{number} "), delay) for number in range(count))


def _call(index: int, rest: str) -> Iterator[tuple[ModelEvent, float]]:
    name, _, arguments = rest.partition(" ")
    yield ToolCallStart(index, f"call_{uuid.uuid4().hex[:24]}", name), 0
    arguments = arguments.strip() or "{}"
    for start in range(0, len(arguments), _JSON_PIECE):
        yield ToolCallDelta(index, arguments[start : start + _JSON_PIECE]), 0
    yield ToolCallEnd(index), 0


def _end(reason: str, explanation: str) -> Finished | None:
    if reason not in ("stop", "length", "content-filter", "other"):
        return None
    return Finished(reason, Usage(), explanation=explanation or None, refused=reason == "content-filter")  # type: ignore[arg-type]


def _requested_call(asked: str, tools: Container[str]) -> str | None:
    """Returns the call that the message asks for, in the form `/tool` takes. None if it asks for none."""
    for tool, pattern in _REQUESTS.items():
        if tool in tools and (found := pattern.match(asked)) is not None:
            return f"{tool} {orjson.dumps(found.groupdict()).decode()}"
    return None


def _last_question(messages: Sequence[NewMessage]) -> tuple[str, Sequence[NewMessage]]:
    """Returns the user's last text and the messages after it. Page context comes in a part before that text."""
    for place in range(len(messages) - 1, -1, -1):
        if messages[place].role is Role.USER:
            texts = [part.text for part in messages[place].parts if isinstance(part, TextPart)]
            return (texts[-1] if texts else ""), messages[place + 1 :]
    return "", messages


def _answer(asked: str) -> str:
    words = _COMMAND.sub("", asked).split()
    if not words:
        return "I am here. Write me something."
    if _ASKS_FOR_HELP.match(asked):
        return _HELP
    quoted = _beginning(" ".join(words))
    end = "" if quoted.endswith((".", "!", "?", "…")) else "."
    return (
        f"You wrote: “{quoted}”{end} I am the scripted model, which answers while no API key is set. "
        "Set an API key to get answers from a language model."
    )


def _beginning(text: str) -> str:
    words = text.split()
    return " ".join(words[:12]) + (" …" if len(words) > 12 else "")


def _comment(since: Sequence[NewMessage]) -> str:
    """Returns one sentence about each result of the last step."""
    last_calls = next((place for place in range(len(since) - 1, -1, -1) if since[place].role is Role.ASSISTANT), 0)
    results = [part for message in since[last_calls:] for part in message.parts if isinstance(part, ToolResultPart)]
    if not results:
        return "There is nothing to add."
    return " ".join(_sentence_about(result) for result in results)


def _sentence_about(result: ToolResultPart) -> str:
    if isinstance(result.output, dict) and result.output.get("type") in _STILL_RUNNING:
        return f"The tool {result.tool_name} is still working. Its result will appear here by itself."
    return f"The tool {result.tool_name} {'failed' if result.is_error else 'answered'}: {_gist(result.output)}"


def _comment_on_note(note: str, messages: Sequence[NewMessage]) -> str:
    """Returns a sentence about the result of the tool call that the note names."""
    named = _CALL.search(note)
    for message in messages:
        for part in message.parts:
            if isinstance(part, ToolResultPart) and named is not None and part.tool_call_id == named[1]:
                return f"The work of {part.tool_name} has ended: {_gist(part.output)}"
    return _answer(_inside(note))


def _summary(messages: Sequence[NewMessage]) -> str:
    """Returns a line for each text of the user, after those of an earlier summary."""
    lines = []
    for message in messages:
        for part in message.parts if message.role is Role.USER else ():
            text = part.text if isinstance(part, TextPart) else ""
            if text.startswith(SUMMARY_OPENS):
                lines.append(text.removeprefix(SUMMARY_OPENS).removesuffix(SUMMARY_CLOSES).strip())
            elif text and not text.startswith("<"):
                lines.append(f"- The user wrote: “{_beginning(text)}”")
    return "\n".join(lines)


def _inside(note: str) -> str:
    return note.removeprefix(NOTE_OPENS).removesuffix(NOTE_CLOSES)


def _gist(output: Json) -> str:
    text = output.get("message") if isinstance(output, dict) else output
    words = str(text if text is not None else output).split()
    gist = " ".join(words[:30]) + (" …" if len(words) > 30 else "")
    return gist if gist.endswith((".", "!", "?", "…")) else f"{gist}."


def _words_of(prompt: Prompt) -> int:
    words = len(prompt.system.split())
    for message in prompt.messages:
        for part in message.parts:
            match part:
                case TextPart() | ReasoningPart():
                    words += len(part.text.split())
                case ToolCallPart():
                    words += len(str(part.input).split())
                case ToolResultPart():
                    words += len(str(part.output).split())
    return words
