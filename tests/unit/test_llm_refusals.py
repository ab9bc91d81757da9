"""What is read from the refusals of servers, and that reading a long one takes no time worth mentioning."""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx2
import pytest

from backend.files.kinds import Kind
from backend.json_client.redacting import safe_text
from executor.llm import refusals
from executor.llm.failures import of_error
from executor.llm.model import ToolSpec
from executor.llm.provider_words import sentence_of

TOOLS = [ToolSpec(name, "", {}) for name in ("look", "find", "peek")]
SIZES = (1_500, 15_000)
"""Characters. Work that grows with the square of the length takes 100 times as long for the second."""
MOST_GROWTH = 40
PIECES = [
    "<script>", "<style>x", "<script", "<head>", "<title>", "<!--", "<", "<a ", "1", "1,", "1 ", "9.", "max_tokens,,",
    "max_tokens 1,", "max_tokens [ ", "tools, ", "tools 1", "tools", "not ", "no support ", "context length 1 ", "a",
    "schema ", "messages[", "://", "https://", "token ", "try again in 1m", "has 1 ", "prompt (", "lower than ", "a:",
]  # fmt: skip
HEADS = [
    ("max_tokens", ","), ("max_tokens [1", " "), ("exceeds the context limit: ", "1 +"), ("invalid tools ", "1"),
    ("<html><script>", "</"), ("<html>", "<script>"), ("<html>", "<title>"), ("<html>", "<head>"), ("<html>", "<!--"),
]  # fmt: skip


class Refused(Exception):
    def __init__(self, response: httpx2.Response) -> None:
        self.response, self.body = response, response.text


def readings(text: str) -> list[Callable[[], object]]:
    """Returns all readings of one body and of one refusal."""
    error, reason = Refused(httpx2.Response(400, text=text)), text[: refusals.MAX_REASON]
    return [
        lambda: refusals.reason_of(error),
        lambda: sentence_of(text),
        lambda: of_error({"error": {"message": text}}, status=400),
        lambda: refusals.token_limits(reason, 100),
        lambda: refusals.refused_tool(reason, TOOLS),
        lambda: refusals.is_about_schemas(reason),
        lambda: refusals.refuses_tools(reason),
        lambda: refusals.refuses_system(reason),
        lambda: refusals.refuses_parallel_calls(reason),
        lambda: refusals.is_about_files(reason),
        lambda: refusals.refuses_files(reason),
        lambda: refusals.kinds_named(reason),
        lambda: refusals.refuses_setting(reason, "max_tokens"),
        lambda: refusals.misses_reasoning("reasoning_content" + reason),
        lambda: safe_text(text),
    ]


def processor_seconds(work: Callable[[], object]) -> float:
    """The lesser of two times of this thread, so that other work on the machine does not count."""
    times = []
    for _ in range(2):
        begun = time.thread_time()
        work()
        times.append(time.thread_time() - begun)
    return min(times)


@pytest.mark.parametrize(("head", "piece"), [*(("", piece) for piece in PIECES), *HEADS])
def test_the_time_to_read_a_refusal_grows_with_its_length_and_not_with_the_square(head: str, piece: str) -> None:
    short, long = (readings(head + (piece * size)[:size] + " maximum") for size in SIZES)
    for number, (small, large) in enumerate(zip(short, long, strict=True)):
        most = MOST_GROWTH * max(processor_seconds(small), 0.000_1)
        assert processor_seconds(large) < most, number


def test_separators_in_a_row_are_read_at_once() -> None:
    """Thirty of them once took 2 ** 30 steps."""
    assert refusals.refused_tool("invalid tools" + ", " * 2_000 + "x", TOOLS) is None


def test_a_number_with_thousands_of_digits_is_no_error() -> None:
    for words in ("invalid tools[{}]", "context length {}", "max_tokens must be at most {}", "{} input tokens"):
        refusals.refused_tool(words.format("9" * 5_000), TOOLS)
        refusals.token_limits(words.format("9" * 5_000), 100)


@pytest.mark.parametrize(
    ("reason", "asked", "limits"),
    [
        ("maximum context length is 4,096 tokens (3000 in the messages)", 100, (4_096, 3_000, None)),
        ("this model supports at most 4096 completion tokens", 8_192, (None, None, 4_096)),
        ("max_tokens: 9000 > 8192, which is the maximum", 9_000, (None, None, 8_192)),
        ("max_tokens must be in [1, 8192]", 9_000, (None, None, 8_192)),
        ("max_tokens supported range is from 1 (inclusive) to 65 (exclusive)", 100, (None, None, 64)),
        ("prompt is too long: 210000 tokens > 200000 maximum", 100, (200_000, 210_000, None)),
        (
            "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000",
            20_000,
            (200_000, 190_000, None),
        ),
        ("max_tokens must be at most 16", 100, (None, None, 16)),
        ("max_tokens must be at most 15", 100, (None, None, None)),
        ("max_tokens must be at most 1", 100, (None, None, None)),
        ("max_tokens must be at most 4096", 100, (None, None, None)),
        ("context length is 8", 100, (None, None, None)),
    ],
)
def test_the_token_limits_in_a_refusal_are_found(reason: str, asked: int, limits: tuple[int | None, ...]) -> None:
    found = refusals.token_limits(reason, asked)
    assert (found.context, found.prompt, found.answer) == limits


@pytest.mark.parametrize(
    ("reason", "name"),
    [
        ("invalid schema: body tools 1 function parameters", "find"),
        ("tools[2].function.parameters is invalid", "peek"),
        ("tools.0.custom.input_schema: json schema is invalid", "look"),
        ("'tools[0].function_declarations[2].parameters': invalid", "peek"),
        ("invalid: tools 128 maximum", None),
    ],
)
def test_the_tool_that_is_refused_is_found_by_its_number(reason: str, name: str | None) -> None:
    found = refusals.refused_tool(reason, TOOLS)
    assert (found.name if found is not None else None) == name


@pytest.mark.parametrize(
    ("reason", "missed"),
    [
        ("the `reasoning_content` in the thinking mode must be passed back to the api.", True),
        ("missing `reasoning_content` field in the assistant message at message index 1", True),
        ("thinking is enabled but reasoning_content is missing in assistant tool call message", True),
        ("unsupported parameter: 'reasoning_content'. you must remove it", False),
        ("unrecognized key reasoning_content; a string is required", False),
        ("extra inputs are not permitted reasoning_content required", False),
    ],
)
def test_reasoning_that_is_refused_is_not_missing(reason: str, missed: bool) -> None:
    assert refusals.misses_reasoning(reason) is missed
    assert refusals.misses_thought_signature(reason.replace("reasoning_content", "thought_signature")) is missed


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("<html><head><title>502</title><style>a{}</style></head><body><p>Bad gateway", "a web page: 502 Bad gateway"),
        ("<html><head><title>502</title><body>Bad gateway", "a web page: 502 Bad gateway"),
        ("<html><body>Bad gateway<script>let x = 1", "a web page: Bad gateway"),
        ("<html><header>Bad</header> gateway<!-- x", "a web page: Bad gateway"),
    ],
)
def test_a_web_page_is_told_in_its_own_words_even_if_it_breaks_off(page: str, words: str) -> None:
    assert sentence_of(page) == words
    assert "bad gateway" in refusals.reason_of(Refused(httpx2.Response(400, text=page)))


IMAGE, PDF, NO_PICTURES = frozenset({Kind.IMAGE}), frozenset({Kind.PDF}), frozenset({Kind.PDF, Kind.AUDIO})


@pytest.mark.parametrize(
    ("words", "kinds"),
    [
        ("Invalid content type. image_url is only supported by certain models.", IMAGE),
        (
            "Invalid value: 'file'. Supported values are: 'text', 'image_url', 'input_audio', 'refusal', and 'audio'.",
            PDF,
        ),
        ("messages[1]: unknown variant `image_url`, expected `text` at line 1 column 213", IMAGE),
        ("messages[1]: unknown variant `file`, expected one of `text`, `image_url`", PDF),
        ("Input tag 'file' found using 'type' does not match any of the expected tags: 'text', 'image_url'", PDF),
        ("image input is not supported - hint: if this is unexpected, you may need to provide the mmproj", IMAGE),
        ("At most 0 image(s) may be provided in one prompt.", IMAGE),
        ("Unknown part type: file", PDF),
        ("Image input is not enabled for this model", IMAGE),
        ("'claude-3-opus' does not support PDF input.", PDF),
        ("No endpoints found that support image input", IMAGE),
        ("Unsupported MIME type: application/pdf", PDF),
        ("This model does not support document inputs; it only supports images and text.", PDF),
        ("Files of this type are not supported: the model only supports text and images, no other file", NO_PICTURES),
        ("this is not a multimodal model", frozenset()),
        ("unsupported content[].type", frozenset()),
    ],
)
def test_a_refusal_tells_which_files_a_model_does_not_take(words: str, kinds: frozenset[Kind]) -> None:
    assert refusals.is_about_files(words.lower())
    assert refusals.refuses_files(words.lower())
    assert refusals.kinds_named(words.lower()) == kinds
