"""Tests of the search in templates of agents."""

from __future__ import annotations

from executor.tools.templates import Templates
from tests import ROOT


def test_templates_are_found_by_words_of_their_name_and_description() -> None:
    templates = Templates(ROOT / "examples" / "agent_templates")
    (found,) = templates.search("a MAIL that nobody has", 5)
    assert (found["id"], found["source"]) == ("acme/mail-digest", "template")
    assert templates.search("acme", 0) == templates.search("zebra", 5) == Templates(None).search("mail", 5) == []
