"""Tests the checker of the AI SDK tests, whose results prove nothing unless it finds faults."""

from tests import speed
from tests.e2e import sdk


async def test_the_checker_passes_good_streams_and_finds_every_kind_of_fault() -> None:
    await sdk.install()
    code, output = await sdk.run("node", "--test", "selftest/", within=speed.limit(90))
    assert code == 0, output[-5000:]
