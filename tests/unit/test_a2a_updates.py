"""The updates of A2A that the chunks of a stream become."""

from __future__ import annotations

from typing import Any

from backend.chat.models import Json
from backend.chat.protocol.renderings.a2a_tasks import Ids, Updates
from backend.ids import SessionId, TaskId


def updates_of(*chunks: dict[str, Json]) -> list[dict[str, Any]]:
    updates = Updates(Ids(TaskId("t"), SessionId("c")))
    return [update for chunk in chunks for update in updates.of(chunk)]


def built(updates: list[dict[str, Any]]) -> str:
    """The artifact as a client builds it."""
    text = ""
    for update in updates:
        if "artifactUpdate" in update:
            piece = update["artifactUpdate"]["artifact"]["parts"][0]["text"]
            text = text + piece if update["artifactUpdate"]["append"] else piece
    return text


def said(text: str) -> list[dict[str, Json]]:
    return [{"type": "text-start", "id": "t"}, {"type": "text-delta", "id": "t", "delta": text}]


STEP, END = {"type": "start-step"}, {"type": "finish-step"}
FINISHED = {"type": "finish", "finishReason": "stop", "messageMetadata": {"status": "completed", "model": "m"}}


def test_texts_are_pieces_of_one_artifact() -> None:
    updates = updates_of({"type": "start"}, STEP, *said("One"), END, STEP, *said("Two"), END, FINISHED)
    assert [next(iter(update)) for update in updates] == [
        "statusUpdate", "artifactUpdate", "artifactUpdate", "artifactUpdate", "statusUpdate",
    ]  # fmt: skip
    assert built(updates) == "One\n\nTwo"
    assert updates[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"
    assert updates[-1]["statusUpdate"]["metadata"] == {"model": "m"}


def test_a_step_that_is_written_again_replaces_its_first_form() -> None:
    reset = {"type": "reset-step"}
    for before, kept in (([*said("One"), END, STEP], "One\n\n"), ([], "")):
        updates = updates_of(STEP, *before, *said("Ha"), reset, STEP, *said("Half"), END, FINISHED)
        assert built(updates) == f"{kept}Half"
    assert updates_of(STEP, reset) == []


def test_a_failure_has_its_reason() -> None:
    error = {"type": "data-error", "data": {"code": "provider_error", "message": "It is away."}}
    failed = {"type": "finish", "finishReason": "error", "messageMetadata": {"status": "failed"}}
    status = updates_of(error, {"type": "error", "errorText": "It is away."}, failed)[-1]["statusUpdate"]["status"]
    assert status["state"] == "TASK_STATE_FAILED"
    assert status["message"]["parts"] == [{"text": "It is away."}]
    assert status["message"]["metadata"] == {"code": "provider_error"}
