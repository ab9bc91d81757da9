"""Questions: operations whose outcome comes from the user of the conversation, and the answers that fit them. No I/O.

A question is what a tool asks (`question`), whether a call may run (`approval`), a call that the user's page carries
out (`page_tool`), or what a tool server asks in the middle of a call (`elicitation`). It is stored with its operation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from backend.chat.models import Json
from backend.chat.questions.forms import MAX_CHOICES, MAX_TEXT_CHARS, check_fields
from backend.errors import ValidationFailed

QUESTIONS = "questions"
"""The word of `accept` by which a page says that it shows questions."""
MAX_PAGE_TOOLS = 16
MAX_PAGE_TOOL_BYTES = 32_768
"""Bytes of all tools that a page names, as JSON."""


class QuestionKind(StrEnum):
    QUESTION = "question"
    APPROVAL = "approval"
    PAGE_TOOL = "page_tool"
    ELICITATION = "elicitation"


@dataclass(frozen=True, slots=True)
class Question:
    """What the user is asked. `text` is the question, else the name of the tool.

    A question without `choices` and `form` is answered with a text. With `several`, any number of the choices may be
    picked. With `other`, a text may be given instead of a choice. `form` is a JSON Schema that `check_form` accepts;
    its answer is an object. A tool server asks for a form, or that the user opens `url`; `server` is its name.
    """

    kind: QuestionKind
    text: str = ""
    choices: tuple[str, ...] = ()
    several: bool = False
    other: bool = True
    form: Json = None
    server: str = ""
    url: str = ""

    def as_json(self) -> dict[str, Json]:
        """Returns the members that differ from their defaults. `from_json` reads them."""
        document: dict[str, Json] = {"kind": self.kind.value}
        if self.text:
            document["text"] = self.text
        if self.choices:
            document |= {"choices": list(self.choices), "several": self.several, "other": self.other}
        if self.form is not None:
            document["form"] = self.form
        for name, value in (("server", self.server), ("url", self.url)):
            if value:
                document[name] = value
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any] | None) -> Self | None:
        """Returns None for no question, and for one of a kind that a newer version has added."""
        if document is None or document["kind"] not in list(QuestionKind):
            return None
        return cls(
            QuestionKind(document["kind"]),
            document.get("text", ""),
            tuple(document.get("choices", ())),
            document.get("several", False),
            document.get("other", True),
            document.get("form"),
            document.get("server", ""),
            document.get("url", ""),
        )

    @property
    def property_order(self) -> list[str] | None:
        """The fields of the form as they were written. None without a form, or if an older version has stored it."""
        order = None if self.form is None else self.form.get("propertyOrder")
        return order if isinstance(order, list) and set(self.form["properties"]) == set(map(str, order)) else None

    def check(self, answer: Json) -> None:
        """Raises ValidationFailed unless the answer fits a question."""
        if self.form is not None:
            check_fields(self.form, answer)
        elif self.several:
            if not isinstance(answer, list) or not answer or len(answer) > MAX_CHOICES:
                raise ValidationFailed("`answer` must be a list of the choices.")
            for one in answer:
                self._check_one(one)
        else:
            self._check_one(answer)

    def _check_one(self, answer: Json) -> None:
        if not isinstance(answer, str) or not answer.strip() or len(answer) > MAX_TEXT_CHARS:
            raise ValidationFailed(f"`answer` must be a text of 1 to {MAX_TEXT_CHARS} characters.")
        if self.choices and not self.other and answer not in self.choices:
            raise ValidationFailed("`answer` must be one of the choices.")
