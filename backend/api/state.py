"""The state of the process, which the routes share, and the state of one request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from fastapi import Request

from backend.api.arrivals import ArrivingMessages
from backend.api.auth import Authenticator, FrontendKeys, Identity, ServiceKeys, WebhookSecrets
from backend.api.body_memory import BodyMemory
from backend.api.completion_loop import CompletionLoop
from backend.api.jobs import Jobs
from backend.api.metrics import ApiMetrics
from backend.api.open_streams import OpenStreams
from backend.api.per_minute import PerMinute
from backend.api.proxies import TrustedProxies
from backend.api.timeouts import Timeouts
from backend.api.uploads import Uploads
from backend.chat.resources import DependencyStates, Resources

if TYPE_CHECKING:  # its HTTP client takes 15 ms to import, which an API without a platform saves
    from backend.platform.client import Platform


@dataclass(frozen=True, slots=True)
class ApiState:
    """Everything that endpoints need. It is made once, when the process starts."""

    resources: Resources
    authenticator: Authenticator
    service_keys: ServiceKeys
    frontend_keys: FrontendKeys
    webhook_secrets: WebhookSecrets
    open_streams: OpenStreams
    arrivals: ArrivingMessages
    jobs: Jobs
    completions: CompletionLoop
    metrics: ApiMetrics
    timeouts: Timeouts
    proxies: TrustedProxies
    bodies: BodyMemory
    new_sessions: PerMinute
    uploads: Uploads
    platform: Platform | None
    """The client of the agent platform; None if none is configured."""
    shared_reads: PerMinute

    async def state(self) -> DependencyStates:
        """Returns the state of each service that requests need."""
        state = await self.resources.state()
        return DependencyStates(state.checks | {"completions": self.completions.healthy}, state.reasons)


class RequestState(Protocol):
    """The state of one request. `identity` is there on routes that authenticate their caller.

    `signatures` are the valid ones of a signed webhook.
    """

    api: ApiState
    identity: Identity
    request_id: str
    signatures: Sequence[str]


def state_of(request: Request) -> RequestState:
    return cast(RequestState, request.state)


def address_of(request: Request) -> str:
    """Returns the caller's address. X-Forwarded-For is believed only from trusted proxies."""
    peer = request.client.host if request.client is not None else "local"
    return state_of(request).api.proxies.client_of(peer, request.headers.getlist("x-forwarded-for"))
