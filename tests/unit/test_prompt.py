"""The system prompt of an operator: a text, or a file that must be there."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.config import Settings
from backend.errors import ConfigError
from executor.turns.prompt import SYSTEM_PROMPT, system_prompt


def prompt_of(setting: object) -> str:
    return system_prompt(Settings(chat_system_prompt=str(setting)))


@pytest.mark.parametrize("text", ["Be brief.", "/help lists commands; be brief", "x" * 300, "two\nlines.txt", "word"])
def test_a_text_is_the_prompt_even_if_it_is_too_long_for_the_name_of_a_file(text: str) -> None:
    assert prompt_of(text) == text
    assert prompt_of("") == SYSTEM_PROMPT


def test_a_file_that_exists_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "prompt").write_text("Be brief. é")
    assert prompt_of(tmp_path / "prompt") == "Be brief. é"
    monkeypatch.chdir(tmp_path)
    assert prompt_of("prompt") == prompt_of("./prompt") == "Be brief. é"


@pytest.mark.parametrize("name", ["/nonexistent/prompt.txt", "./prompt", "../prompt", "prompt.md", "~/prompt", "/"])
def test_a_path_without_a_readable_file_is_no_prompt(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^CHAT_SYSTEM_PROMPT: [^\n]+$"):
        prompt_of(name)


@pytest.mark.parametrize(
    "content", [b"", b" \n", b"\xff\xfe", b"x" * 1_000_001], ids=["empty", "blank", "bytes", "huge"]
)
def test_a_file_that_cannot_be_a_prompt_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "prompt").write_bytes(content)
    with pytest.raises(ConfigError, match=r"^CHAT_SYSTEM_PROMPT: [^\n]+$"):
        prompt_of(tmp_path / "prompt")
