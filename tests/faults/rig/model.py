"""Questions for the fake model. A question determines its answer, so a gap or a repetition shows in the text itself."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.fakes.running import fake_server
from tests.servers.proxy import FaultProxy

_COUNT = re.compile(r"^/count (\S+) (\d+)", re.MULTILINE)


def question(name: str, chunks: int, delay_ms: int) -> str:
    """Returns a question whose answer is `name:0;name:1;…`, with that delay before each chunk. The model ignores
    earlier questions that were never answered."""
    return f"/afresh\n/count {name} {chunks} {delay_ms}"


def answer_to(text: str) -> str:
    """Returns the model's answer to a question, with the text of all steps."""
    return "".join(f"{name}:{n};" for name, count in _COUNT.findall(text) for n in range(int(count)))


@asynccontextmanager
async def model_settings(host: str = "127.0.0.1") -> AsyncIterator[dict[str, str]]:
    """Starts a model provider as a process. Yields the settings with which executors use it at that address."""
    async with fake_server("openai") as url, FaultProxy.before(url, host=host) as proxy:
        reached = url if host == "127.0.0.1" else proxy.dsn
        yield {"CHAT_PROVIDER": "openai", "CHAT_BASE_URL": reached, "CHAT_API_KEY": "of-the-rig", "CHAT_MODEL": "fake"}
