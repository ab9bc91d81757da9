"""The parts of a user's message, made from the request of its task."""

from __future__ import annotations

from backend.chat.models import MetadataPart, NotePart, Part, Task, TextPart


def user_parts(task: Task) -> tuple[Part, ...]:
    """Returns the parts of the message that the task was accepted with. Only a page context if it has no text.

    Text from a service or the server becomes a note, which only the model sees.
    """
    request = task.request
    parts: list[Part] = [request.context] if request.context is not None else []
    if request.text is not None:
        parts += request.files
        if request.text or not request.files:
            parts.append(TextPart(request.text) if request.is_user_message else NotePart(request.text))
        parts += request.data
        if request.metadata is not None:
            parts.append(MetadataPart(request.metadata))
    return tuple(parts)
