"""Imported trees: each message follows the one that it followed where it was exported, on whatever branch."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from backend.api.importing import read_turns
from backend.chat.models import Role, TextPart
from backend.chat.store.conversations.imports import ImportedTurn


@st.composite
def trees(draw: st.DrawFn) -> tuple[list[Any], list[Any]]:
    """Draws the messages of a current branch, and a tree that contains it. The text of a message is its name."""
    tree: list[Any] = []
    parents: list[int | None] = []
    for n in range(draw(st.integers(1, 12))):
        after = draw(st.none() | st.integers(0, n - 1)) if n else None
        asks = after is None or tree[after]["message"]["role"] == "assistant" or draw(st.booleans())
        number = n if asks or after is None or draw(st.booleans()) else _number_of(tree[after]["name"])
        name = f"{'usr' if asks else 'msg'}_{number}"
        if any(item["name"] == name for item in tree):
            name = f"{name.split('_')[0]}_{n}"
        message = {"id": name, "role": "user" if asks else "assistant", "parts": [{"type": "text", "text": name}]}
        tree.append({"name": name, "after": None if after is None else tree[after]["name"], "message": message})
        parents.append(after)
    branch: list[int] = []
    place: int | None = draw(st.integers(0, len(tree) - 1))
    while place is not None:
        branch.insert(0, place)
        place = parents[place]
    messages = [tree[place]["message"] for place in branch]
    for index, place in enumerate(branch):
        tree[place] = {**tree[place], "message": index}
    return messages, tree


def _number_of(name: str) -> int:
    return int(name.split("_")[1])


def _texts(turns: list[ImportedTurn]) -> dict[str, tuple[str | None, bool]]:
    """Maps the text of each row to that of the row that it follows, and whether it is on the current branch."""
    at = {row.sequence: row.message.parts[0] for turn in turns for row in turn.rows}
    found: dict[str, tuple[str | None, bool]] = {}
    for turn in turns:
        before = turn.parent
        for row in turn.rows:
            text, parent = row.message.parts[0], at.get(before)
            assert isinstance(text, TextPart)
            assert row.message.role is (Role.USER if row.step == 0 else Role.ASSISTANT)
            found[text.text] = (parent.text if isinstance(parent, TextPart) else None, row.is_current)
            before = row.sequence
    return found


@settings(max_examples=200, deadline=None)
@given(trees())
def test_each_message_follows_the_one_that_it_followed(drawn: tuple[list[Any], list[Any]]) -> None:
    messages, tree = drawn
    expected = {item["name"]: (item["after"], isinstance(item["message"], int)) for item in tree}
    assert _texts(read_turns(messages, tree)) == expected
