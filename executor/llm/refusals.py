"""The reasons why a server refused a request, read from whatever it sent: JSON of any shape, HTML or plain text.

The sentences that these patterns know are those of OpenAI, Azure, Anthropic, Gemini, Mistral, DeepSeek, Groq, Together,
OpenRouter, LiteLLM, vLLM, Ollama, llama.cpp and LM Studio. Reading one wrongly costs a request at most: what is learned
from it is forgotten after a while (`server_memory.py`).

A refusal may be long and hold anything, and is read on the event loop of all turns. So every repetition has a bound, or
begins and ends with characters that it does not hold itself: the time grows with the length, and not with its square.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import httpx2

from backend.chat.models import Json
from backend.files.kinds import WHOLE, Kind
from executor.llm.model import ToolSpec

MAX_REASON = 20_000  # characters
LEAST_ANSWER = 16
"""Tokens. A smaller number in a refusal is not taken for a limit: answers of that length would be of no use."""
LEAST_CONTEXT = 64
"""Tokens. A smaller number in a refusal is not taken for the context."""
_ECHOES = frozenset({"input", "failed_generation"})
"""Members in which servers repeat the request, or what the model said."""
_MARKUP = re.compile(r"<(script|style)\b.*?(?:</\1>|\Z)|<[^<>]{0,500}>", re.DOTALL | re.IGNORECASE)
_NUMBER = r"(\d[\d,_]{0,19})"
_CONTEXT = tuple(
    re.compile(pattern)
    for pattern in (
        rf"exceeds? (?:the )?context limit: [\d,_ +]{{1,60}}> {_NUMBER}",
        rf"context[ _-]?(?:length|size|window|limit)[^.\d]{{0,60}}{_NUMBER}(?! (?:in the|of text))",
        rf"{_NUMBER} (?:tokens? )?(?:maximum |max )?context",
        rf"maximum number of tokens allowed \({_NUMBER}",
        rf"maximum prompt length is {_NUMBER}",
        rf"prompt is too long: [\d,_]{{1,20}} tokens > {_NUMBER}",
        rf"(?:n_ctx|max_model_len|context_length|max_context_length)\W{{1,4}}{_NUMBER}",
        rf"limit {_NUMBER}, requested \d",
        rf"(?:max_new_tokens|total number of tokens)[^.<]{{0,60}}(?:<=|cannot exceed) {_NUMBER}",
    )
)
_USED = tuple(
    re.compile(pattern)
    for pattern in (
        rf"{_NUMBER} (?:tokens? )?(?:in|of|from) (?:the )?(?:messages|input|prompt|text input)",
        rf"(?:has|contains?|with|resulted in) {_NUMBER} (?:input |prompt )?tokens",
        rf"(?:request|input token count|prompt)\W{{1,3}}\(?{_NUMBER}(?: tokens)?\)? (?:tokens )?exceeds",
        rf"(?:n_prompt_tokens)\W{{1,4}}{_NUMBER}",
        rf"context limit: {_NUMBER} \+",
        rf"prompt is too long: {_NUMBER} tokens",
        rf"given: {_NUMBER} `?inputs",
        rf"{_NUMBER} input tokens",
    )
)
_OUTPUT = r"(?:max_(?:completion_|output_|new_)?tokens|maxoutputtokens|(?:completion|output) tokens|maximum tokens)"
_CAP = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        rf"at most {_NUMBER} (?:completion|output) tokens",
        rf"{_OUTPUT}[^.]{{0,60}}\[\s{{0,3}}\d{{1,20}}\s{{0,3}},\s{{0,3}}{_NUMBER}\s{{0,3}}\]",
        rf"{_OUTPUT}.{{0,160}}?(?:less than or equal to|at most|not exceed|cannot exceed|<=|lower than|limit of)"
        rf"\D{{0,4}}{_NUMBER}",
        rf"{_OUTPUT}\W{{1,20}}[\d,_]{{1,20}} > {_NUMBER}",
        rf"{_OUTPUT}.{{0,160}}?\bto {_NUMBER}",
    )
)
_TOOL_NUMBER = re.compile(
    r"(?:function_?declarations|tools|functions)(?:[\[./ ,]|\"\],){1,8}(\d{1,4})(?!\d)"
    r"(?![\d ]{0,20}(?:maximum|at most))"
)
_DECLARATION = re.compile(r"function_?declarations[\[./ ,]{1,8}(\d{1,4})(?!\d)")
_ABOUT_A_TOOL = re.compile(
    r"schema|parameter|function_?declaration|invalid|unsupported|refused|extra|missing|required"
    r"|not (?:supported|valid|permitted|allowed)"
)
_ABOUT_A_MESSAGE = re.compile(r"messages?[\[./ ]+\d|\binput\[\d")
_NO_TOOLS = re.compile(
    r"(?:(?:do|does|did|is|are|can) ?not|n't|\bno\b|without)[^.]{0,60}(?:support|enabl|allow|permit)[^.]{0,50}"
    r"\b(?:tools?|functions?)\b"
    r"|\b(?:tools?|functions?)\b[^.]{0,60}"
    r"(?:not (?:be |currently |yet )*(?:support|enabl|allow|permit|availab|implement)"
    r"|unsupported|disabled|requires? --|param requires)"
    r"|(?:unrecognized|unsupported|unexpected|unknown|extra)[^.]{0,60}\btools\b"
    r"|enable-auto-tool-choice"
)
_NO_SYSTEM = re.compile(
    r"(?:system|developer)[_ ](?:role|message|prompt|instruction)s?\W[^.]{0,40}(?:not|unsupported|disabled)"
    r"|(?:system|developer)\W{1,3}(?:role )?(?:is )?(?:not|un)"
    r"|(?:not|n't|unsupported|unknown|unexpected|invalid)[^.]{0,50}"
    r"(?:\bsystem\b|system[_ ]?(?:role|prompt|instruction))"
    r"|(?:unrecognized|unsupported|unexpected|unknown|extra)[^.]{0,60}\bsystem\b"
    r"|roles must alternate"
)
_ONE_CALL = re.compile(
    r"single tool.?calls? at once|only (?:one|a single) tool.?call|parallel tool calls? (?:is|are) not"
)
_REFUSED_MEMBER = re.compile(
    r"\b(?:unsupported|unrecognized|unexpected|unknown|extra inputs|not (?:permitted|allowed|supported))"
)
_TEXT_ALONE = re.compile(
    r"\b(?:valid|an?|type:?) string\b|\bexpected str|unmarshal array|not [\"'\\]{0,2}list\b|type: sequence"
)
_UNKNOWN = re.compile(
    r"unrecognized|unsupported|unexpected|unknown|extra|additional"
    r"|not (?:be )?(?:permitted|supported|allowed|recognized)"
    r"|(?:does|do|is|are) ?n[o']t|no longer|deprecated|remove"
    r"|(?:invalid|bad) (?:parameter|argument|field|option|key|name|request argument)"
)


def reason_of(error: Exception) -> str:
    """Returns all words of an SDK's status error in lower case, cut to MAX_REASON characters.

    A body that is no JSON is a text; the tags of HTML are left out.
    """
    response: httpx2.Response | None = getattr(error, "response", None)
    body: Json = getattr(error, "body", None)
    try:
        raw = response.text if response is not None else ""
        body = response.json() if response is not None else body
    except (ValueError, httpx2.StreamError, RecursionError):
        pass
    if isinstance(body, (dict, list)):
        return " ".join(_words(body)).lower()[:MAX_REASON]
    text = body if isinstance(body, str) else raw or str(error)
    return html.unescape(" ".join(_MARKUP.sub(" ", text[: 4 * MAX_REASON]).split())).lower()[:MAX_REASON]


def _words(value: Json, depth: int = 12) -> Iterator[str]:
    """Yields names and values, without what the request itself said.

    JSON inside a string stays as it is: its words are read all the same.
    """
    if depth == 0:
        return
    if isinstance(value, dict):
        for name, item in value.items():
            if name in _ECHOES:
                continue
            yield name
            yield from _words(item, depth - 1)
    elif isinstance(value, list):
        for item in value:
            yield from _words(item, depth - 1)
    elif value is not None:
        yield str(value)


@dataclass(frozen=True, slots=True)
class TokenLimits:
    """The limits of tokens that a refusal names. A limit that it does not name is None."""

    context: int | None = None
    """Most tokens of prompt and answer together."""
    prompt: int | None = None
    """Tokens of the prompt, as the server counts them."""
    answer: int | None = None
    """Most tokens of one answer."""


def token_limits(reason: str, asked: int) -> TokenLimits:
    """Reads the limits in a refusal of a request for up to `asked` tokens."""
    context = _first(_CONTEXT, reason)
    if context is not None and context >= LEAST_CONTEXT:
        return TokenLimits(context, _first(_USED, reason))
    answer = _first(_CAP, reason)
    if answer is None:
        return TokenLimits()
    exclusive = re.search(rf"{answer:d} \(exclusive\)|lower than\D{{0,4}}{answer:d}", reason) is not None
    answer -= exclusive
    return TokenLimits(answer=answer) if LEAST_ANSWER <= answer < asked else TokenLimits()


_A_MINUTE = re.compile(r"limit (\d{1,12}), requested (\d{1,12})\b")


def exceeds_a_minute(reason: str) -> bool:
    """Returns True if the request has more tokens than a minute allows, so that no wait helps. Groq says so with
    413, OpenAI with 429.
    """
    told = _A_MINUTE.search(reason)
    return told is not None and int(told[2]) > int(told[1])


def _first(patterns: Sequence[re.Pattern[str]], reason: str) -> int | None:
    for pattern in patterns:
        if match := pattern.search(reason):
            return int(match[1].replace(",", "").replace("_", "")[:12] or "0")
    return None


def refused_tool(reason: str, tools: Sequence[ToolSpec]) -> ToolSpec | None:
    """Returns the tool whose definition the refusal names, by its name or its number. None if it names no single one.

    A refusal of a call in the history is about `messages`.
    """
    if not tools or not _ABOUT_A_TOOL.search(reason) or _ABOUT_A_MESSAGE.search(reason):
        return None
    named = [tool for tool in tools if re.search(rf"(?<![\w-]){re.escape(tool.name.lower())}(?![\w-])", reason)]
    quoted = [tool for tool in named if re.search(rf"['\"`]{re.escape(tool.name.lower())}['\"`]", reason)]
    if len(quoted) == 1 or (not quoted and len(named) == 1):
        return (quoted or named)[0]
    numbers = {int(match[1]) for match in _TOOL_NUMBER.finditer(reason)}
    declared = _DECLARATION.findall(reason)
    numbers = {int(number) for number in declared} or numbers
    number = numbers.pop() if len(numbers) == 1 else -1
    return tools[number] if 0 <= number < len(tools) else None


def is_about_schemas(reason: str) -> bool:
    """Returns True if the definition of some tool is refused, without saying which."""
    return re.search(r"schema", reason) is not None and _ABOUT_A_MESSAGE.search(reason) is None


def refuses_tools(reason: str) -> bool:
    return _NO_TOOLS.search(reason) is not None


def refuses_system(reason: str) -> bool:
    return _NO_SYSTEM.search(reason) is not None


def refuses_lists_of_blocks(reason: str) -> bool:
    """Returns True if a message's content must be text, in words of pydantic, OpenAI, Go, serde and templates."""
    return _TEXT_ALONE.search(reason) is not None


_KINDS = {
    Kind.IMAGE: re.compile(r"\b(?:images?|pictures?|image_url|input_image|vision)\b"),
    Kind.PDF: re.compile(r"\b(?:pdfs?|documents?|input_file|file_data)\b|[\"'`]file[\"'`]|\btype: file\b"),
    Kind.AUDIO: re.compile(r"\b(?:audio|input_audio)\b"),
}
_ABOUT_FILES = re.compile(
    r"\bimages?\b|image_url|input_image|\bpdfs?\b|\bdocuments?\b|input_file|file_data|multimodal|vision"
    r"|\baudio\b|input_audio|[\"'`]file[\"'`]|\bfile input|\btype: file\b|unsupported content\[\]\.type"
)
_NO_FILES = re.compile(
    r"(?:not|n't) (?:a multimodal|support[^.]{0,40}(?:image|vision|multimodal|pdf|file|document|audio))"
    r"|(?:image|vision|pdf|file|document|audio|multimodal)[^.]{0,60}(?:not|n't|un)[ -]?(?:support|enabl)"
    r"|only supported by certain models|no endpoints found that support|at most 0 (?:image|file|document|audio)"
    r"|(?:unknown variant|unknown part type|invalid (?:value|type)\W|input tag)"
    r"\W{0,4}(?:input_)?(?:image|image_url|file|document|pdf|audio)\b"
    r"|unsupported (?:mime|media) type\W{1,4}application/pdf|unsupported content\[\]\.type"
)
_ALLOWED = re.compile(
    r"\b(?:supported|allowed|valid|possible|accepted) (?:values|types|content types|options)\b"
    r"|\bexpected (?:one of|tags?)|\b(?:must|should) be (?:one of|either)|\bonly supports?\b"
)
"""What follows names the kinds that the model does take."""


def is_about_files(reason: str) -> bool:
    return _ABOUT_FILES.search(reason) is not None


def kinds_named(reason: str) -> frozenset[Kind]:
    """Returns the kinds of files that the refusal is about, as far as it tells."""
    allowed = _ALLOWED.search(reason)
    if allowed is None:
        return _kinds_in(reason)
    refused = _kinds_in(reason[: allowed.start()])
    return refused or WHOLE - _kinds_in(reason[allowed.start() :])


def _kinds_in(words: str) -> frozenset[Kind]:
    return frozenset(kind for kind, pattern in _KINDS.items() if pattern.search(words))


def refuses_files(reason: str) -> bool:
    """Returns True if the model takes no files of a kind at all, and not only this one."""
    return _NO_FILES.search(reason) is not None


def refuses_parallel_calls(reason: str) -> bool:
    return _ONE_CALL.search(reason) is not None


def refuses_setting(reason: str, name: str) -> bool:
    """Returns True if the refusal names this member of the request, and does not just mention it."""
    named = re.search(rf"(?<![\w]){re.escape(name)}(?![\w])", reason)
    return named is not None and _UNKNOWN.search(reason) is not None


def misses_reasoning(reason: str) -> bool:
    """Returns True if the server wants `reasoning_content` in messages that have none, and does not refuse it."""
    wanted = re.search(r"miss|must|requir|need|pass(?:ed)? back|\bexpect", reason) is not None
    return "reasoning_content" in reason and wanted and _REFUSED_MEMBER.search(reason) is None


def misses_thought_signature(reason: str) -> bool:
    named = "thought_signature" in reason or "thought signature" in reason
    return named and _REFUSED_MEMBER.search(reason) is None
