"""Requests that one server accepts for one model. What it refuses is left out and remembered.

Nothing is known about a model in advance. A refusal that can be read changes the next try, and later requests to the
model (`server_memory.py`).
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from backend.chat.models import NewMessage, Role, TextPart
from backend.files.kinds import WHOLE, Kind
from executor.llm import refusals
from executor.llm.failures import ModelCallError, of_response
from executor.llm.files import kinds_of_files, only_named
from executor.llm.fitting import fixed_tokens, messages_tokens, trimmed
from executor.llm.history import compact_json
from executor.llm.model import Prompt, ToolSpec
from executor.llm.own_history import HistoryForm, conversation_of, has_reasoning, written_for
from executor.llm.retrying import keys_of
from executor.llm.server_memory import Draft, ServerMemory

logger = logging.getLogger(__name__)

MAX_TRIES = 16
"""Most requests for one answer. Each try after the first one gives something up."""
MAX_PROBES = 64
LEAST_CUT = 200
"""Tokens of messages, or of tools, below which cutting them cannot help."""
_MARGIN = 16  # tokens
_PROBE = Prompt("", (NewMessage(Role.USER, (TextPart("Hi"),)),), max_output_tokens=16)
_SPEAKS_OF_LENGTH = re.compile(r"max_(?:completion_|output_|new_)?tokens|maxoutputtokens|(?:output|completion) tokens")
_MOST_TOOLS = re.compile(r"\b(?:tools|functions)\b.{0,120}?(?:maximum|at most|limit|more than)\D{0,20}(\d{1,4})\b")
_DATA_FIELDS = ("reasoning_content", "reasoning", "reasoning_details", "thinking_blocks", "extra_content",
                "provider_specific_fields", "reasoning_opaque")  # fmt: skip
_FINAL = frozenset({"content_filter", "authentication", "quota_exceeded", "rate_limited", "overloaded", "timeout"})
_STATUSES = frozenset({400, 404, 413, 422, 500, 501})
_RAREST = (Kind.AUDIO, Kind.PDF, Kind.IMAGE)
_TAKEN_AS = {
    Kind.IMAGE: "pictures; it reads their names",
    Kind.PDF: "PDFs; it reads their text",
    Kind.AUDIO: "sounds; it reads their names",
}
T = TypeVar("T")


class Dialect(Protocol):
    """The format of a provider's requests."""

    def body(self, draft: Draft) -> dict[str, Any]: ...

    def concede(self, reason: str, body: dict[str, Any], draft: Draft) -> bool:
        """Gives up a setting of this format that the reason names. Returns False if it names none."""
        ...


Send = Callable[[dict[str, Any]], AbstractAsyncContextManager[T]]


class Adapter(ServerMemory):
    """Asks one model at one server (`owner`) until it accepts, and remembers what it refuses.

    `secrets` are hidden in what the server says.
    """

    def __init__(self, owner: str, secrets: Sequence[str] = ()) -> None:
        super().__init__(owner)
        self._secrets = secrets
        self._probing = asyncio.Lock()

    # --- asking -------------------------------------------------------------------------------------------------------

    async def ask(
        self, draft: Draft, dialect: Dialect, send: Send[T], refusal: type[Exception], stack: AsyncExitStack
    ) -> T:
        """Returns the answer, open on `stack`. Raises the last refusal if nothing is left to give up."""
        while True:
            draft.tries += 1
            draft.known = self.refused()
            body = dialect.body(draft)
            try:
                answer = await stack.enter_async_context(send(body))
            except refusal as error:
                if draft.tries >= MAX_TRIES or not await self._concede(error, draft, body, dialect, send, refusal):
                    raise
            else:
                self._accepted(draft)
                return answer

    def draft(self, prompt: Prompt) -> Draft:
        """Returns the first try, without all that the server is known to refuse."""
        most = self.limit("tools")
        tools = [tool for tool in prompt.tools if not self.refuses(f"tool {tool.name}")][:most]
        if self.refuses("tools"):
            tools = []
        answer_tokens = min(prompt.max_output_tokens, self.limit("answer") or prompt.max_output_tokens)
        prompt, answer_tokens = self._fitted(replace(prompt, tools=tools), answer_tokens)
        if refused := self.refused_kinds():
            prompt = replace(prompt, messages=only_named(prompt.messages, refused))
        form = self.form_of(conversation_of(prompt.messages))
        return Draft(prompt, form if tools or not self.refuses("tools") else HistoryForm.TEXT, answer_tokens)

    def _fitted(self, prompt: Prompt, answer_tokens: int) -> tuple[Prompt, int]:
        """Trims prompt and answer to the context that the server has named, or that it accepted after an overflow."""
        budget, context = self.room(prompt, answer_tokens), self.limit("context")
        if budget is None:
            return prompt, answer_tokens
        used = messages_tokens(prompt.messages)
        if used > budget:
            prompt = replace(prompt, messages=trimmed(prompt, budget))
            used = budget
        if context is None:
            return prompt, answer_tokens
        left = context - self._fixed_tokens(prompt) - used
        return prompt, min(answer_tokens, max(left, context // 4))

    def room(self, prompt: Prompt, answer_tokens: int) -> int | None:
        """Returns the tokens of messages that the server is known to accept beside the rest of the prompt, or None."""
        context = self.limit("context")
        if context is None:
            return self.limit("messages")
        return max(100, context - self._fixed_tokens(prompt) - min(answer_tokens, context // 4))

    def _fixed_tokens(self, prompt: Prompt) -> int:
        return fixed_tokens(prompt) + (self.limit("uncounted") or 0) + _MARGIN

    def _accepted(self, draft: Draft) -> None:
        """Remembers what the accepted draft shows for later requests: how long messages may be, and the form of a
        history.
        """
        if 0 < draft.cuts < 3 and self.limit("context") is None:
            words = "it refused a prompt as too long; later prompts are trimmed"
            most = max(messages_tokens(draft.prompt.messages), draft.too_long // 2)  # a last exchange may be tiny
            self.set_limit("messages", most, words)
        conversation = conversation_of(draft.prompt.messages)
        if (
            conversation is not None
            and draft.form is not HistoryForm.OWN
            and draft.cuts < 3
            and not self.refuses("tools")
        ):
            self.set_form(conversation, draft.form)

    def concede_in_stream(self, failure: ModelCallError, draft: Draft) -> bool:
        """Cuts the prompt if the answer began with an overflow, which LM Studio and the Responses API send with the
        status 200. Leaves reasoning out if the server cannot decrypt it."""
        reason = failure.said.lower()
        if failure.code == "bad_request" and draft.form is HistoryForm.OWN and "encrypted content" in reason:
            draft.form = HistoryForm.PLAIN
            return True
        if failure.code != "context_too_long" or draft.tries >= MAX_TRIES:
            return False
        return self._limit_tokens(reason, failure, draft) or self._cut(draft, None, None)

    # --- giving up ----------------------------------------------------------------------------------------------------

    async def _concede(
        self,
        error: Exception,
        draft: Draft,
        body: dict[str, Any],
        dialect: Dialect,
        send: Send[T],
        refusal: type[Exception],
    ) -> bool:
        """Changes the draft, or what is remembered. Returns False if the refusal cannot be helped."""
        response, said = error.response, error.body  # type: ignore[attr-defined]
        secrets = [*keys_of(response), *self._secrets]
        failure = of_response(response.status_code, said, response.headers, secrets=secrets)
        reason = refusals.reason_of(error)
        if failure.code == "rate_limited" and refusals.exceeds_a_minute(reason):
            return self._fit_tokens(reason, draft)
        if response.status_code not in _STATUSES or failure.code in _FINAL:
            return False
        logger.info("model %s refused a request", self.owner, extra={"error": failure.said})
        if "tool_use_failed" in reason:  # Groq: what the model wrote was no call
            return False
        if self._drop_files(reason, draft):
            return True
        if self._limit_tokens(reason, failure, draft) or dialect.concede(reason, body, draft):
            return True
        files = kinds_of_files(draft.prompt.messages)
        if refusals.refuses_lists_of_blocks(reason) and self._without(files, draft, remembered=True):
            return True
        if self._fill_in(reason, draft) or self._drop_data(reason, body, draft) or self._drop_a_tool(reason, draft):
            return True
        if refusals.refuses_tools(reason) and draft.prompt.tools:
            self.remember("tools", "it accepts no tools; answers are made without them", draft)
            draft.prompt, draft.form = replace(draft.prompt, tools=()), HistoryForm.TEXT
            return True
        if refusals.is_about_schemas(reason) and draft.prompt.tools:
            async with self._probing:
                if await self._drop_probed_tools(draft, dialect, send, refusal):
                    return True
        if failure.code == "context_too_long":
            return self._cut(draft, None, None)
        unclear = failure.code == "bad_request" and response.status_code in (400, 422)
        return unclear and (self._write_plainer(draft) or self._without(files, draft, remembered=False))

    def refused_kinds(self) -> frozenset[Kind]:
        """Returns the kinds of files that the model is known to refuse."""
        return frozenset(kind for kind in WHOLE if self.refuses(_files_of(kind)))

    def _drop_files(self, reason: str, draft: Draft) -> bool:
        """Leaves out the pictures or the PDFs, whatever the refusal is about, and remembers a model that takes none.

        If it does not tell, what fewer models take goes first.
        """
        present = kinds_of_files(draft.prompt.messages)
        if not present or not refusals.is_about_files(reason):
            return False
        refused = refusals.kinds_named(reason) & present or frozenset(
            [next(kind for kind in _RAREST if kind in present)]
        )
        return self._without(refused, draft, remembered=refusals.refuses_files(reason))

    def _without(self, kinds: frozenset[Kind], draft: Draft, *, remembered: bool) -> bool:
        """Leaves out the files of these kinds. Returns False if there are none."""
        for kind in kinds if remembered else ():
            self.remember(_files_of(kind), f"it takes no {_TAKEN_AS[kind]}", draft)
        draft.prompt = replace(draft.prompt, messages=only_named(draft.prompt.messages, kinds))
        return bool(kinds)

    def _limit_tokens(self, reason: str, failure: ModelCallError, draft: Draft) -> bool:
        """Asks for a shorter answer, or cuts the prompt, as the numbers in the refusal say."""
        speaks_of_it = failure.code == "context_too_long" or _SPEAKS_OF_LENGTH.search(reason) is not None
        return speaks_of_it and self._fit_tokens(reason, draft)

    def _fit_tokens(self, reason: str, draft: Draft) -> bool:
        asked = draft.answer_tokens
        limits = refusals.token_limits(reason, asked)
        if limits.answer is not None:
            self.set_limit("answer", limits.answer, f"its answers have at most {limits.answer} tokens")
            draft.answer_tokens = limits.answer
            return True
        if limits.context is None:
            return False
        self.set_limit("context", limits.context, f"its context has {limits.context} tokens")
        estimate = fixed_tokens(draft.prompt) + messages_tokens(draft.prompt.messages)
        prompt = limits.prompt or estimate
        # the odd text of one conversation must not shrink the context of all others much
        self.set_limit("uncounted", min(max(0, prompt - estimate), limits.context // 4))
        room = limits.context - prompt - _MARGIN
        if min(asked, max(refusals.LEAST_ANSWER, limits.context // 8)) <= room < asked:
            draft.answer_tokens = room
            return True
        return self._cut(draft, limits.context, prompt)

    def _cut(self, draft: Draft, context: int | None, prompt_tokens: int | None) -> bool:
        """Cuts the messages to half, then to the last exchange, then leaves out the tools. Returns False after that.

        A step that would make the prompt hardly shorter is left out.
        """
        prompt = draft.prompt
        size = draft.too_long = messages_tokens(prompt.messages)
        if context is not None:
            draft.answer_tokens = min(draft.answer_tokens, max(1, context // 4))
        alone = draft.cuts == 0 and size < LEAST_CUT
        while draft.cuts < 2 and size >= LEAST_CUT:
            draft.cuts += 1
            share = min(0.5, context / (2 * prompt_tokens)) if context and prompt_tokens else 0.5
            kept = prompt if draft.cuts == 1 else replace(prompt, messages=_last_exchange(prompt.messages))
            shorter = trimmed(kept, max(100, int(size * (share if draft.cuts == 1 else 0.5))))
            if messages_tokens(shorter) < 0.9 * size:
                draft.prompt = replace(prompt, messages=shorter)
                return True
        return draft.cuts < 3 and self._cut_tools(draft, context, alone=alone)

    def _cut_tools(self, draft: Draft, context: int | None, *, alone: bool) -> bool:
        """Leaves out the tools. Returns False if that would make the prompt hardly shorter.

        Later prompts get no tools either if no conversation fits beside them: if system prompt and tools are larger
        than the context, or if they were refused although there was hardly a message beside them (`alone`).
        """
        if fixed_tokens(replace(draft.prompt, system="")) < LEAST_CUT:
            return False
        draft.cuts = 3
        if alone or (context is not None and fixed_tokens(draft.prompt) >= context):
            self.remember("tools", "its context has no room for the tools; answers are made without them", draft)
        else:
            logger.info("model %s: one conversation has no room for the tools", self.owner)
        draft.prompt, draft.form = replace(draft.prompt, tools=()), HistoryForm.TEXT
        return True

    def _fill_in(self, reason: str, draft: Draft) -> bool:
        """Notes that calls of other models need a stand-in for data that only this model has."""
        if refusals.misses_reasoning(reason):
            words = "it wants reasoning with the calls of other models too"
            return self.remember("calls without reasoning", words, draft)
        if refusals.misses_thought_signature(reason):
            words = "it wants a signature with the calls of other models too"
            return self.remember("calls without signature", words, draft)
        return False

    def _drop_data(self, reason: str, body: dict[str, Any], draft: Draft) -> bool:
        sent = compact_json(body.get("messages", body.get("input")))
        for name in _DATA_FIELDS:
            if refusals.refuses_setting(reason, name) and f'"{name}":' in sent:
                return self.remember(name, f"it does not accept its own {name} back", draft)
        return False

    def _drop_a_tool(self, reason: str, draft: Draft) -> bool:
        tools = draft.prompt.tools
        if tool := refusals.refused_tool(reason, tools):
            self._drop(draft, [tool])
            return True
        if (most := _MOST_TOOLS.search(reason)) and 0 < int(most[1]) < len(tools):
            self.set_limit("tools", int(most[1]), f"it accepts {most[1]} tools; the last ones are left out")
            draft.prompt = replace(draft.prompt, tools=tools[: int(most[1])])
            return True
        return False

    def _drop(self, draft: Draft, refused: Sequence[ToolSpec]) -> None:
        for tool in refused:
            words = f"it refuses the definition of the tool {tool.name}, which is left out"
            self.remember(f"tool {tool.name}", words, draft)
        names = {tool.name for tool in refused}
        draft.prompt = replace(draft.prompt, tools=[tool for tool in draft.prompt.tools if tool.name not in names])

    async def _drop_probed_tools(self, draft: Draft, dialect: Dialect, send: Send[T], refusal: type[Exception]) -> bool:
        """Finds the tools that the server refuses without naming them, by small requests with some of the tools."""
        known = [tool for tool in draft.prompt.tools if self.refuses(f"tool {tool.name}")]
        if known:  # another turn has found them meanwhile
            self._drop(draft, known)
            return True
        left = MAX_PROBES

        async def refused_of(tools: Sequence[ToolSpec]) -> list[ToolSpec]:
            nonlocal left
            left -= 1
            body = dialect.body(Draft(replace(_PROBE, tools=tools), HistoryForm.OWN, _PROBE.max_output_tokens))
            try:
                async with send(body):
                    return []
            except refusal as error:
                if error.response.status_code not in (400, 422):  # type: ignore[attr-defined]
                    raise
                if not refusals.is_about_schemas(refusals.reason_of(error)):
                    return []
                if len(tools) == 1 or left <= 0:
                    return list(tools)
                half = len(tools) // 2
                return [*await refused_of(tools[:half]), *await refused_of(tools[half:])]

        refused = await refused_of(list(draft.prompt.tools))
        if refused:
            self._drop(draft, refused)
        return bool(refused)

    def _write_plainer(self, draft: Draft) -> bool:
        """Writes the history in the next form that differs. Returns False if there is none."""
        messages = draft.prompt.messages
        if draft.form is HistoryForm.OWN:
            draft.form = HistoryForm.PLAIN
            own = written_for(messages, self.owner, HistoryForm.OWN)
            if has_reasoning(own) or own != written_for(messages, self.owner, HistoryForm.PLAIN):
                return True
        if draft.form is HistoryForm.PLAIN and conversation_of(messages) is not None:
            draft.form = HistoryForm.TEXT
            return True
        return False


def _files_of(kind: Kind) -> str:
    return f"files of the kind {kind}"


def _last_exchange(messages: Sequence[NewMessage]) -> list[NewMessage]:
    start = max(place for place, message in enumerate(messages) if message.role is Role.USER)
    if start == 0:
        return list(messages)
    note = TextPart(f"[{start} earlier messages are left out here, to fit the model's context.]")
    return [replace(messages[start], parts=(note, *messages[start].parts)), *messages[start + 1 :]]
