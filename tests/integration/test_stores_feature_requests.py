"""Tests of the store of feature requests."""

from __future__ import annotations

import pytest

from backend.chat.store.published import feature_requests
from backend.chat.store.published.feature_requests import create_request
from backend.errors import TooManyFeatureRequests
from backend.ids import UserId
from backend.postgres import Connection
from tests.integration.running_api import new_id, new_user


async def test_a_repeated_call_stores_a_request_once_even_at_the_limit(
    c: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_requests, "MOST_OF_USER", 1)
    user, key = UserId(new_user()), new_id()
    first = await create_request(c, user, key, "Dance", "")
    assert await create_request(c, user, key, "Dance", "") == first
    with pytest.raises(TooManyFeatureRequests):
        await create_request(c, user, new_id(), "Sing", "")
    assert (await create_request(c, UserId(new_user()), new_id(), "Sing", "")).title == "Sing"
