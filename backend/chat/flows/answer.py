"""Answers a question in the name of its user. The answer is the outcome of the question's operation."""

from __future__ import annotations

from dataclasses import dataclass

from backend.chat.flows.complete import Completed, complete_operation
from backend.chat.models import Caller, Json
from backend.chat.outcomes import Outcome
from backend.chat.questions import Question, QuestionKind
from backend.chat.questions.forms import MAX_TEXT_CHARS, given_fields
from backend.chat.resources import Resources
from backend.chat.store import operations
from backend.errors import AlreadyCompleted, OperationGone, OperationNotFound, ValidationFailed
from backend.ids import OperationId


@dataclass(frozen=True, slots=True)
class Answer:
    """What a user answers. A question is answered with `answer`, or `declined`; an approval with `approved`.

    What a tool server asks is answered with `answer` (a form) or `approved` (a link), or `declined`, or `dismissed`.

    `reason` says why a call is not approved. `always` approves all further calls of the tool in this session. A call of
    the page's tool has an `output`, or an `error` that says why it has none.
    """

    answer: Json = None
    declined: bool = False
    approved: bool | None = None
    reason: str | None = None
    always: bool = False
    output: Json = None
    error: str | None = None
    dismissed: bool = False


async def answer_question(resources: Resources, caller: Caller, operation_id: OperationId, answer: Answer) -> Completed:
    """Stores the answer to a question of one of the caller's sessions. The first answer counts.

    Raises OperationNotFound (also for an operation that asks nothing), ValidationFailed if the answer does not fit the
    question, AlreadyCompleted, OperationGone and Unavailable.
    """
    async with resources.database.connection() as c:
        question = (await operations.get_operation_of(c, operation_id, caller)).work.asks
    if question is None:
        raise OperationNotFound
    outcome = _outcome_of(question, answer)
    try:
        return await complete_operation(resources, operation_id, outcome, by_user=True)
    except AlreadyCompleted:
        raise AlreadyCompleted("This has been answered already; the first answer is kept.") from None
    except OperationGone:
        raise OperationGone("This is no longer open: it was cancelled, or its time is over.") from None


def _outcome_of(question: Question, given: Answer) -> Outcome:
    if question.kind is QuestionKind.PAGE_TOOL:
        return _output_in(given)
    if given.output is not None or given.error is not None:
        raise ValidationFailed("`output` and `error` are for calls of the page's tools.")
    if question.kind is QuestionKind.ELICITATION:
        return Outcome(True, _answer_to_server(question, given))
    if given.dismissed:
        raise ValidationFailed("`dismissed` is for what a tool server asks.")
    if question.kind is QuestionKind.APPROVAL:
        return Outcome(True, _decision_in(given))
    if given.approved is not None or given.reason is not None or given.always:
        raise ValidationFailed("This is a question, which is answered with `answer` or `declined`.")
    if given.declined:
        if given.answer is not None:
            raise ValidationFailed("A question is answered or declined, not both.")
        return Outcome(True, {"declined": True})
    question.check(given.answer)
    return Outcome(True, {"answer": given.answer})


def _answer_to_server(question: Question, given: Answer) -> Json:
    kinds = {
        "answer": given.answer is not None,
        "approved": given.approved is not None,
        "declined": given.declined,
        "dismissed": given.dismissed,
    }
    if sum(kinds.values()) != 1 or given.reason is not None or given.always:
        raise ValidationFailed(f"Answer with exactly one of {', '.join(kinds)}.")
    if given.declined or given.approved is False:
        return {"declined": True}
    if given.dismissed:
        return {"dismissed": True}
    if question.url:
        if given.approved is None:
            raise ValidationFailed("This asks to open a link, which is answered with `approved`.")
        return {"approved": True}
    if given.answer is None:
        raise ValidationFailed("This asks for a form, which is answered with `answer`.")
    question.check(given.answer)
    return {"answer": given_fields(given.answer, question.form)}


def _output_in(given: Answer) -> Outcome:
    decided = given.declined or given.dismissed or given.approved is not None or given.reason or given.always
    if given.answer is not None or decided:
        raise ValidationFailed("This is a call of the page's tool, which is answered with `output` or `error`.")
    if given.error is not None and given.output is not None:
        raise ValidationFailed("A call has an output or an error, not both.")
    if given.error is not None:
        return Outcome(False, {"error_type": "page_tool_failed"}, given.error)
    return Outcome(True, {"output": given.output})


def _decision_in(given: Answer) -> Json:
    if given.approved is None or given.answer is not None or given.declined:
        raise ValidationFailed("This call needs an approval, which is answered with `approved`.")
    if given.always and not given.approved:
        raise ValidationFailed("`always` is only for an approval.")
    if given.reason is not None and len(given.reason) > MAX_TEXT_CHARS:
        raise ValidationFailed(f"`reason` may have {MAX_TEXT_CHARS} characters.")
    decision: dict[str, Json] = {"approved": given.approved}
    if given.reason:
        decision["reason"] = given.reason
    return decision | ({"always": True} if given.always else {})
