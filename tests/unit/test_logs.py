"""Trouble that lasts is told rarely, and with nothing secret in it."""

from __future__ import annotations

import logging

import pytest

from backend import logs
from backend.logs import Trouble, place_of, why_away

logger = logging.getLogger("tests.trouble")


def test_lasting_trouble_is_said_once_then_rarely_and_when_it_is_over(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    trouble = Trouble(logger, "Redis is away", at="127.0.0.1:1")
    trouble.over()
    for _ in range(100):
        trouble.met("Connection refused")
    assert caplog.messages == ["Redis is away"]
    assert vars(caplog.records[0]).items() >= {"at": "127.0.0.1:1", "why": "Connection refused"}.items()
    monkeypatch.setattr(logs, "SAY_AGAIN", 0.0)
    trouble.met("Connection refused")
    trouble.over()
    trouble.over()
    assert caplog.messages == ["Redis is away", "Redis is away", "Redis is away: over"]


@pytest.mark.parametrize(
    ("dsn", "place"),
    [
        ("amqp://user:s3cr3t@broker:5672/vhost", "broker:5672"),
        ("redis://:a%40b@127.0.0.1:6379/0", "127.0.0.1:6379"),
        ("unix:///tmp/redis.sock", "/tmp/redis.sock"),
    ],
)
def test_a_place_names_nothing_of_the_login(dsn: str, place: str) -> None:
    assert place_of(dsn) == place


def test_why_a_server_is_away_is_said_in_words() -> None:
    lost = ConnectionError("x")
    lost.__cause__ = ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 1)")
    assert why_away(lost) == "Connection refused"
    assert why_away(TimeoutError()) == "it does not answer"
    assert why_away(RuntimeError("ACCESS_REFUSED - Login was refused")) == "it refuses the login"
