"""The bodies of requests and responses about the webhooks of a user."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from backend.api.schema_base import Body
from backend.chat.store.webhooks.deliveries import Delivery, Event, Failure
from backend.chat.store.webhooks.endpoints import Endpoint
from backend.setting_types import HttpUrl

MAX_URL = 2_000  # characters
_EVENTS = "The events to send. Without it, all of them."
_WITH_TEXT = "Whether `turn.finished` has the text of the answer. Otherwise events have only ids, statuses and times."
SENTENCES: dict[str, str] = {
    Failure.ADDRESS_REFUSED: "The host has an address to which this server sends nothing.",
    Failure.NOT_RESOLVED: "The name of the host was not found.",
    Failure.NOT_CONNECTED: "No connection could be made.",
    Failure.CERTIFICATE: "The certificate of the endpoint is not valid, or TLS failed.",
    Failure.TIMEOUT: "The endpoint did not answer in time.",
    Failure.NOT_ANSWERED: "The connection ended without a valid answer.",
    Failure.REDIRECTED: "The endpoint answered with a redirect, which is not followed.",
    Failure.REFUSED: "The endpoint answered with an error.",
    Failure.GONE: "The endpoint answered 410, so it was disabled.",
    Failure.DISABLED: "The webhook was disabled before this was sent.",
    Failure.TOO_LATE: "This waited for a day while the endpoint failed.",
    Failure.TOO_MANY_WAITING: "Too many events were waiting for this endpoint.",
}


class _Out(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True)


def _once(events: list[Event]) -> list[Event]:
    return list(dict.fromkeys(events))


_AnEvent = Annotated[Event, Field(strict=False)]
_Events = Annotated[list[_AnEvent], Field(min_length=1, max_length=10), AfterValidator(_once)]


class NewWebhook(Body):
    """The webhook to create."""

    url: Annotated[HttpUrl, StringConstraints(max_length=MAX_URL)]
    events: Annotated[_Events, Field(description=_EVENTS)] = list(Event)  # noqa: RUF012 - pydantic copies it
    with_text: Annotated[bool, Field(description=_WITH_TEXT)] = False


class WebhookChanges(Body):
    """The changes to a webhook. What is null or not named stays as it is."""

    events: Annotated[_Events | None, Field(description=_EVENTS)] = None
    with_text: Annotated[bool | None, Field(description=_WITH_TEXT)] = None
    enabled: bool | None = None

    @model_validator(mode="after")
    def _changes_something(self) -> WebhookChanges:
        if self.events is None and self.with_text is None and self.enabled is None:
            raise ValueError("must name something to change")
        return self


class WebhookOut(_Out):
    """A webhook without its secrets. Until `previous_until`, the secret before the rotation signs as well."""

    id: str
    url: str
    events: list[str]
    with_text: bool
    enabled: bool
    disabled_at: datetime | None
    disabled_by: str | None = Field(description="`user`, or `gone` if the endpoint answered 410.")
    failing_since: datetime | None
    paused_until: datetime | None = Field(description="Nothing is sent before, because the endpoint fails.")
    previous_until: datetime | None
    created_at: datetime


class WebhookSecret(WebhookOut):
    """A webhook with its new secret, which is not shown again."""

    secret: str

    @classmethod
    def of(cls, endpoint: Endpoint, secret: str) -> WebhookSecret:
        return cls(**WebhookOut.model_validate(endpoint).model_dump(), secret=secret)


class WebhookList(_Out):
    webhooks: list[WebhookOut]


class DeliveryError(_Out):
    """Why the newest attempt failed. `answer` is the status that the endpoint answered with."""

    code: str
    message: str
    answer: int | None


class DeliveryOut(_Out):
    """One event for a webhook. `id` is its `webhook-id`. `next_try_at` is null unless the state is `waiting`."""

    id: str
    event: str
    session_id: str
    task_id: str
    status: str = Field(description="How the task ended.")
    state: Literal["waiting", "delivered", "failed"]
    attempts: int
    error: DeliveryError | None
    next_try_at: datetime | None
    delivered_at: datetime | None
    created_at: datetime

    @classmethod
    def of(cls, delivery: Delivery) -> DeliveryOut:
        over: Literal["delivered", "failed"] = "failed" if delivery.delivered_at is None else "delivered"
        error = delivery.error
        return cls(
            id=delivery.id,
            event=delivery.event,
            session_id=delivery.session_id,
            task_id=delivery.task_id,
            status=delivery.status.value,
            state=over if delivery.due_at is None else "waiting",
            attempts=delivery.attempts,
            error=None
            if error is None
            else DeliveryError(code=error, message=SENTENCES.get(error, "It failed."), answer=delivery.answer),
            next_try_at=delivery.due_at,
            delivered_at=delivery.delivered_at,
            created_at=delivery.created_at,
        )


class DeliveryList(_Out):
    deliveries: list[DeliveryOut]
