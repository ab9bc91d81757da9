"""The wait that a server asks for in the headers of an HTTP answer."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime


def retry_after_of(headers: Mapping[str, str]) -> float | None:
    """Returns the seconds that `retry-after-ms` or `retry-after` (seconds or a date) asks for. None without either.

    LiteLLM's proxy passes a provider's headers on with `llm_provider-` before their names.
    """
    for prefix in ("", "llm_provider-"):
        wait = _wait_of(headers.get(f"{prefix}retry-after-ms"), headers.get(f"{prefix}retry-after"))
        if wait is not None:
            return wait
    return None


def _wait_of(milliseconds: str | None, wait: str | None) -> float | None:
    try:
        if milliseconds:
            return max(0.0, float(milliseconds) / 1000)
        if not wait:
            return None
        if re.fullmatch(r"\s*\d{1,9}(\.\d+)?\s*", wait):
            return float(wait)
        return max(0.0, parsedate_to_datetime(wait).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
