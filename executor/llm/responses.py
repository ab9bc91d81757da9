"""Requests of OpenAI's Responses API. Source: `openai` 3.54.0, `ResponseCreateParams` (read 2026-11-30)."""

from __future__ import annotations

import re
from typing import Any, Final

from executor.llm.adapting import Adapter
from executor.llm.extras import Extras
from executor.llm.own_history import HistoryForm
from executor.llm.refusals import refuses_parallel_calls, refuses_setting, refuses_system
from executor.llm.responses_items import responses_items
from executor.llm.server_memory import Draft

ENCRYPTED: Final = "reasoning.encrypted_content"
LEAST_TOKENS = 16
"""The API refuses a smaller `max_output_tokens`."""
_OPTIONAL = ("include", "reasoning", "max_output_tokens", "prompt_cache_key", "parallel_tool_calls")
_NO_ENCRYPTED = re.compile(r"encrypted.content\W{0,3} is not supported|\bparam include\b")
_ABOUT_SUMMARIES = re.compile(r"reasoning\.summary|reasoning summar")
_ABOUT_HISTORY = re.compile(
    r"invalid_encrypted_content|encrypted content .{0,200}could not be verified|items are not persisted"
    r"|without its required|required .{0,20}item"
)


class ResponsesDialect:
    """See `adapting.Dialect`.

    `store` is always false, so that the provider does not keep what users write. It is sent even if the server refuses
    it or the operator's list leaves it out, because the default is true. So items of reasoning come encrypted, and go
    back whole.
    """

    def __init__(self, name: str, adapter: Adapter, extras: Extras) -> None:
        self._name = name
        self._adapter = adapter
        self._extras = extras

    def body(self, draft: Draft) -> dict[str, Any]:
        refuses = self._adapter.refuses
        prompt = draft.prompt
        items = responses_items(prompt, self._adapter.owner, draft.form, refuses)
        body: dict[str, Any] = {"model": self._name, "input": items, "stream": True, "store": False}
        if prompt.system.strip() and not refuses("system"):
            body["instructions"] = prompt.system
        if not refuses("include"):
            body["include"] = [ENCRYPTED]
        if not refuses("max_output_tokens"):
            body["max_output_tokens"] = max(LEAST_TOKENS, draft.answer_tokens)
        if prompt.cache_key and not refuses("prompt_cache_key"):
            body["prompt_cache_key"] = prompt.cache_key
        if prompt.tools:
            body["tools"] = [
                {
                    "type": "function",
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": tool.parameters,
                    "strict": False,
                }
                for tool in prompt.tools
            ]
            if not refuses("parallel_tool_calls"):
                body["parallel_tool_calls"] = not refuses("parallel calls")
        body = {**self._extras.apply(body, draft, refuses, _OPTIONAL), "store": False}
        return body if "reasoning" in self._extras.omit or refuses("reasoning") else self._with_summary(body)

    def _with_summary(self, body: dict[str, Any]) -> dict[str, Any]:
        """Asks for a summary of the reasoning, beside the effort if there is one."""
        given = body.get("reasoning", {})
        if not isinstance(given, dict):  # the operator's list of models has set another value
            return body
        reasoning = {"summary": "auto", **given}
        if self._adapter.refuses("summary"):
            del reasoning["summary"]
        others = {name: value for name, value in body.items() if name != "reasoning"}
        return {**others, "reasoning": reasoning} if reasoning else others

    def concede(self, reason: str, body: dict[str, Any], draft: Draft) -> bool:
        """See `Dialect.concede`.

        Models that do not reason refuse encrypted reasoning and its summary, and organisations that OpenAI has not
        verified get no summary. Encrypted reasoning can be read only with the key of the organisation that got it.
        """
        remember = self._adapter.remember
        if "include" in body and _NO_ENCRYPTED.search(reason):
            return remember("include", "it gives no encrypted reasoning", draft)
        if draft.form is HistoryForm.OWN and _ABOUT_HISTORY.search(reason):
            draft.form = HistoryForm.PLAIN
            return True
        if "summary" in (body.get("reasoning") or ()) and _ABOUT_SUMMARIES.search(reason):
            return remember("summary", "it gives no summary of its reasoning", draft)
        if self._extras.concede(reason, body, draft, remember):
            return True
        if "prompt_cache_key" in body and "prompt_cache_key" in reason:
            return remember("prompt_cache_key", "it refuses prompt_cache_key; its prompts may cost more", draft)
        for name in ("reasoning", "max_output_tokens", "include", "parallel_tool_calls"):
            if name in body and refuses_setting(reason, name):
                return remember(name, f"it refuses {name}", draft)
        if refuses_parallel_calls(reason):
            return remember("parallel calls", "it accepts one tool call at a time", draft)
        if "instructions" in body and (refuses_system(reason) or refuses_setting(reason, "instructions")):
            return remember("system", "it refuses instructions; the text is sent as the user's", draft)
        return False
