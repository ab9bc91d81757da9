"""The paths of a workspace."""

from __future__ import annotations

import pytest

from backend.chat.store.attachments.workspaces import _free_path, checked_path
from backend.errors import InvalidPath


@pytest.mark.parametrize("given", ["/workspace/a/b.txt", "./a/b.txt", "a/b.txt", " /a/b.txt "])
def test_a_path_is_stored_in_one_form(given: str) -> None:
    assert checked_path(given) == "a/b.txt"


@pytest.mark.parametrize(
    "given",
    ["", "/", "a//b", "../a", "a/./b", "a/ b", "a\nb", "a\x00", "\ud800", "a/" * 8 + "b", "x" * 101, "\u4e2d" * 86],
)
def test_a_path_that_a_sandbox_could_not_have_is_refused(given: str) -> None:
    with pytest.raises(InvalidPath):
        checked_path(given)


@pytest.mark.parametrize(
    "name",
    [
        "a.txt",
        "\u4e2d" * 100 + ".txt",
        "\u00a0 a.txt\u3000",
        "..",
        "a/b\\c\n",
        "x" * 99 + " .y",
        ". a .",
        "\U0001f600" * 100,
    ],
)
def test_every_file_of_a_message_has_a_path_that_can_be_given_back(name: str) -> None:
    taken: set[str] = set()
    for _ in range(12):
        path = _free_path(name, taken)
        assert checked_path(path) == path
        assert path not in taken
        taken.add(path)
