"""What the end-to-end tests share."""

from __future__ import annotations

import pytest

over_both_queues = pytest.mark.parametrize("servers", ["rabbitmq", "redis"], indirect=True, scope="module")
