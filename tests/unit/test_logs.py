"""Lasting trouble is logged rarely, and without secrets."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest

from backend import logs
from backend.logs import Trouble, place_of, why_away

logger = logging.getLogger("tests.trouble")


FORGED = "/x\n03:00:00.000 error   all is lost\r\x1b[2J\x1b]0;title\x07\x9b31m\x7f\u2028\u202edlrow\ud800\x00"
_LOGGING = """
import logging
from backend.logs import configure_logs
configure_logs("INFO", "console")
logger = logging.getLogger("tests")
"""


def console(code: str) -> str:
    """Returns what a process writes that logs as `make run` does on a terminal. `forged` is a text of a caller."""
    program = f"{_LOGGING}forged = {FORGED!a}\n{code}"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    return done.stderr.decode()


def test_no_value_and_no_message_can_look_like_another_line_or_command_a_terminal() -> None:
    line, rest = console("logger.info('request %s', forged, extra={'path': forged})").split("\n")
    assert rest == ""
    assert line.isprintable()
    escaped = r"/x\n03:00:00.000 error   all is lost\r\x1b[2J\x1b]0;title\x07\x9b31m\x7f\u2028\u202edlrow\ud800\x00"
    assert line.count(escaped) == 2
    assert "é 日本 😀" in console("logger.info('\u00e9 \u65e5\u672c \U0001f600')")


def test_a_trace_keeps_its_lines_and_no_other_control_character() -> None:
    text = console("try: raise ValueError(forged)\nexcept ValueError: logger.exception('failed')")
    assert text.count("\n") > 3
    assert text.replace("\n", "").isprintable()


class Rude:
    def __repr__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize("value", [2**70, "\ud800", {1: 2}, {"a": "\ud800"}, Rude(), [Rude()], [[[2**70]]]])
def test_a_value_that_json_cannot_hold_is_logged_as_text(value: object) -> None:
    record = logging.makeLogRecord({"msg": "something", "odd": value, "task_id": "t1"})
    line = json.loads(logs.JsonLines().format(record))
    assert (line["event"], line["task_id"]) == ("something", "t1")
    assert isinstance(line["odd"], str)


def test_lasting_trouble_is_logged_once_then_rarely_and_when_it_is_over(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    trouble = Trouble(logger, "Redis is away", at="127.0.0.1:1")
    trouble.over()
    for n in range(100):
        trouble.met("Connection refused", retry_in=n)
    assert caplog.messages == ["Redis is away"]
    told = {"at": "127.0.0.1:1", "error": "Connection refused", "retry_in": 0}
    assert vars(caplog.records[0]).items() >= told.items()
    monkeypatch.setattr(logs, "REPEAT_AFTER", 0.0)
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
def test_a_place_does_not_contain_the_login(dsn: str, place: str) -> None:
    assert place_of(dsn) == place


def test_the_reason_of_an_outage_is_a_readable_text() -> None:
    lost = ConnectionError("x")
    lost.__cause__ = ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 1)")
    assert why_away(lost) == "Connection refused"
    assert why_away(TimeoutError()) == "it does not answer"
    assert why_away(RuntimeError("ACCESS_REFUSED - Login was refused")) == "the login was refused"
