"""Routes for services alone: whom we believe an outcome."""

from __future__ import annotations

from fastapi import Request

from backend.api.auth import SIGNATURE
from backend.api.desk import Desk, OpenRoute
from backend.config import Settings
from backend.errors import InvalidApiKey, SignatureInvalid, WebhookNotConfigured

AROUND = 64 << 10


class WebhookRoute(OpenRoute):
    """A route for services alone: by signature if the message has one, else by key. Never open."""

    def body_limit(self, settings: Settings) -> int:
        """An agent of the largest size, and what stands around it."""
        return settings.max_body_bytes + AROUND

    async def admit(self, request: Request, desk: Desk) -> None:
        if not desk.service_keys.configured and not desk.webhook_secrets.configured:
            raise WebhookNotConfigured
        if self._by_signature(request, desk):
            return
        if not desk.service_keys.valid(request.headers):
            raise InvalidApiKey
        if desk.service_keys.is_old(request.headers):
            desk.metrics.count_old_key()

    def check_raw(self, request: Request, desk: Desk, body: bytes) -> None:
        if self._by_signature(request, desk) and not desk.webhook_secrets.signed(request.headers, body):
            raise SignatureInvalid

    @staticmethod
    def _by_signature(request: Request, desk: Desk) -> bool:
        return desk.webhook_secrets.configured and SIGNATURE in request.headers
