"""The key that a scraper of /metrics needs, if METRICS_KEY is set. Both kinds of process check it here."""

from __future__ import annotations

import hmac

from backend.config import Settings


def may_read_metrics(settings: Settings, authorization: str) -> bool:
    """Returns True if no key is set, or if the header is `Bearer` with the key. Takes the same time for any key."""
    if settings.metrics_key is None:
        return True
    scheme, _, given = authorization.partition(" ")
    key = settings.metrics_key.get_secret_value().strip()
    sent = given.strip().encode("latin-1", "replace")  # the bytes that were sent: servers decode headers so
    return hmac.compare_digest(sent, key.encode()) and scheme.lower() == "bearer"
