"""The webhooks of the signed-in user: URLs that are told when turns and operations have ended, and their deliveries."""

from __future__ import annotations

import base64
import secrets
from ipaddress import ip_address
from urllib.parse import urlsplit

from fastapi import APIRouter

from backend.api.deps import ADelivery, AppState, AUser, AWebhook, Limit, Offset, WebhooksUser
from backend.api.problems import responses
from backend.api.routes_base import CallerRoute
from backend.api.webhook_schemas import (
    DeliveryList,
    DeliveryOut,
    NewWebhook,
    WebhookChanges,
    WebhookList,
    WebhookOut,
    WebhookSecret,
)
from backend.chat.store.webhooks import deliveries, endpoints
from backend.config import Settings
from backend.errors import Forbidden, InvalidWebhookUrl
from backend.outside_addresses import OutsideAddresses

router = APIRouter(
    prefix="/webhooks", tags=["webhooks"], route_class=CallerRoute, responses=responses(401, 413, 422, 503)
)
TAKES_JSON, MISSING = responses(400, 408, 415), responses(404)


@router.post("", status_code=201, responses=TAKES_JSON | responses(403, 429))
async def create_webhook(api: AppState, user_id: AUser, new: NewWebhook) -> WebhookSecret:
    """Creates a webhook. The answer has the secret with which its messages are signed; it is not shown again."""
    settings = api.resources.settings
    if settings.max_webhooks == 0:
        raise Forbidden("This server sends no webhooks (MAX_WEBHOOKS).")
    check_url(new.url, settings)
    secret = _new_secret()
    async with api.resources.database.transaction() as c:
        added = await endpoints.add_endpoint(
            c, user_id, new.url, new.events, with_text=new.with_text, secret=secret, most=settings.max_webhooks
        )
    return WebhookSecret.of(added, secret)


@router.get("")
async def list_webhooks(api: AppState, user_id: AUser) -> WebhookList:
    """Lists the user's webhooks, the oldest first."""
    async with api.resources.database.connection() as c:
        found = await endpoints.list_endpoints(c, user_id)
    return WebhookList(webhooks=[WebhookOut.model_validate(endpoint) for endpoint in found])


@router.patch("/{webhook_id}", responses=TAKES_JSON | MISSING)
async def change_webhook(
    api: AppState, user_id: WebhooksUser, webhook_id: AWebhook, changes: WebhookChanges
) -> WebhookOut:
    """Changes a webhook. Disabling it gives up what waits for it; enabling it ends a pause after failures."""
    async with api.resources.database.transaction() as c:
        changed = await endpoints.change_endpoint(
            c, user_id, webhook_id, events=changes.events, with_text=changes.with_text, enabled=changes.enabled
        )
    return WebhookOut.model_validate(changed)


@router.delete("/{webhook_id}", status_code=204, responses=MISSING)
async def delete_webhook(api: AppState, user_id: WebhooksUser, webhook_id: AWebhook) -> None:
    """Deletes a webhook with its log. An attempt that runs may still arrive."""
    async with api.resources.database.transaction() as c:
        await endpoints.delete_endpoint(c, user_id, webhook_id)


@router.post("/{webhook_id}/rotate", responses=MISSING)
async def rotate_secret(api: AppState, user_id: WebhooksUser, webhook_id: AWebhook) -> WebhookSecret:
    """Replaces the secret, and answers with the new one. For a day, messages are signed with both."""
    secret = _new_secret()
    async with api.resources.database.connection() as c:
        rotated = await endpoints.rotate_secret(c, user_id, webhook_id, secret)
    return WebhookSecret.of(rotated, secret)


@router.get("/{webhook_id}/deliveries", responses=MISSING)
async def list_deliveries(
    api: AppState, user_id: WebhooksUser, webhook_id: AWebhook, limit: Limit = 50, offset: Offset = 0
) -> DeliveryList:
    """Lists the events of the last seven days for this webhook, newest first, with what became of them."""
    async with api.resources.database.connection() as c:
        found = await deliveries.deliveries_of(c, user_id, webhook_id, limit=limit, offset=offset)
    return DeliveryList(deliveries=[DeliveryOut.of(delivery) for delivery in found])


@router.post("/{webhook_id}/deliveries/{delivery_id}/send", status_code=202, responses=responses(404, 409))
async def send_delivery_again(
    api: AppState, user_id: WebhooksUser, webhook_id: AWebhook, delivery_id: ADelivery
) -> DeliveryOut:
    """Sends an event again, with the same `webhook-id`, in whatever state it is. It is tried for another day."""
    async with api.resources.database.transaction() as c:
        return DeliveryOut.of(await deliveries.send_again(c, user_id, webhook_id, delivery_id))


def _new_secret() -> str:
    return f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"


def check_url(url: str, settings: Settings) -> None:
    """Raises InvalidWebhookUrl for a URL to which nothing would be sent. Each attempt checks where a name leads."""
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise InvalidWebhookUrl("The URL must not have a user name, a password or a fragment.")
    if parts.scheme != "https" and not settings.webhook_private_networks:
        raise InvalidWebhookUrl("The URL must begin with https://, unless WEBHOOK_PRIVATE_NETWORKS is set.")
    try:
        ip_address(host := parts.hostname or "")
    except ValueError:
        return  # a name
    if not OutsideAddresses(settings.webhook_private_networks).permit(host):
        raise InvalidWebhookUrl("This server sends nothing to this address (WEBHOOK_PRIVATE_NETWORKS).")
