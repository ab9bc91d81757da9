"""ask_user: asks the user a question. The turn ends, and the conversation continues with the answer."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from backend.chat.outcomes import ToolWork
from backend.chat.questions import Question, QuestionKind
from backend.chat.questions.forms import MAX_CHOICES, MAX_LABEL_CHARS, check_form, in_order
from backend.errors import ValidationFailed
from executor.tools.context import ToolContext
from executor.tools.tool import OperationAccepted, StoredResponse, Tool

ASK_USER = "ask_user"
MAX_FORM_CHARS = 16_384
Choice = Annotated[str, StringConstraints(min_length=1, max_length=MAX_LABEL_CHARS)]


class AskUserArgs(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)

    question: str = Field(min_length=1, max_length=4_000, description="The question, in the language of the user")
    choices: list[Choice] = Field(default_factory=list, max_length=MAX_CHOICES, description="Answers to choose from")
    several: bool = Field(False, description="Lets the user pick several of the choices")
    other: bool = Field(True, description="Lets the user write another answer instead of a choice")
    form: dict[str, Any] | None = Field(
        None,
        description="For several answers at once, instead of choices: a JSON Schema of an object whose properties are "
        "strings (with enum), numbers, integers or booleans, each with a title",
    )

    @field_validator("form")
    @classmethod
    def _can_be_shown(cls, form: dict[str, Any] | None) -> dict[str, Any] | None:
        if form is not None:
            try:
                check_form(form)
            except ValidationFailed as error:
                raise ValueError(error.detail) from None
            if len(str(form)) > MAX_FORM_CHARS:
                raise ValueError(f"the form has more than {MAX_FORM_CHARS} characters")
        return form

    @model_validator(mode="after")
    def _asks_one_way(self) -> AskUserArgs:
        if self.form is not None and self.choices:
            raise ValueError("give choices or a form, not both")
        return self


class AskUser(Tool[AskUserArgs]):
    name: ClassVar[str] = ASK_USER
    description: ClassVar[str] = (
        "Ask the user a question that only the user can answer and without which you cannot go on. The answer comes "
        "as the output of this call. Ask everything at once. Do not also write the question as text."
    )
    input_type = AskUserArgs
    idempotent: ClassVar[bool] = True  # a repeated call finds the question that it has asked

    async def run(self, call: AskUserArgs, context: ToolContext) -> OperationAccepted | StoredResponse:
        form = None if call.form is None else in_order(call.form)
        question = Question(QuestionKind.QUESTION, call.question, tuple(call.choices), call.several, call.other, form)
        asked = await context.operations.ask(
            ToolWork(
                turn=context.task_id,
                tool_name=self.name,
                tool_call_id=context.tool_call_id,
                input=call.model_dump(mode="json", exclude_defaults=True),
                asks=question,
            )
        )
        if asked.operation.result is not None:
            return StoredResponse(asked.operation.result)
        return OperationAccepted(asked.operation, asked.already_started)
