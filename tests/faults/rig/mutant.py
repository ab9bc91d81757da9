"""Runs an API or executor with one rule switched off, to prove that the checker finds the fault that the rule prevents.

python -m tests.faults.rig.mutant NAME executor|api

no-fence                a stream accepts chunks of an older attempt after those of a newer one
no-compare-and-set      the commits of a step and of the end do not check the attempt and its owner
terminal-before-commit  the end of the stream is written before the end is committed in Postgres
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha1
from types import ModuleType
from typing import Any

from backend.chat import scripts
from backend.chat.models import EndedTask, TaskError, TaskStatus
from backend.chat.protocol.chunks import END
from backend.chat.protocol.chunks_from_rows import terminal_chunks
from backend.chat.store import tasks
from backend.chat.streams.writer import StreamWriter
from backend.failpoints import reach
from executor.agent.agent import Agent, Commit
from executor.turns import attempt

_BATCH = "local last = first + size - 1"
_OWN_PLACE = """
  local newer, seq = top(key)
  if newer and tonumber(newer) > tonumber(fence) then fence, first = newer, seq + 1 end
  """
_CHECK = "AND attempt = $2 AND owner = $3 AND status = 'running'"
_NO_CHECK = "AND $2::int IS NOT NULL AND $3::text IS NOT NULL"


def no_fence() -> None:
    script = scripts.Script("append")
    object.__setattr__(script, "text", _without(script.text, _BATCH, _OWN_PLACE + _BATCH))
    object.__setattr__(script, "digest", sha1(script.text.encode(), usedforsecurity=False).hexdigest())
    _patch(scripts, "_APPEND", script)


def no_compare_and_set() -> None:
    for name in ("_COMMIT_STEP", "_FINISH"):
        _patch(tasks, name, _without(getattr(tasks, name), _CHECK, _NO_CHECK))


def terminal_before_commit() -> None:
    _patch(attempt.Attempt, "_end", _end_the_stream_first)


async def _end_the_stream_first(
    self: Any, agent: Agent, writer: StreamWriter, status: TaskStatus, error: TaskError | None, last: Commit
) -> EndedTask:
    if self._title is not None:
        await self._title.leave_stream()
    ended = replace(self._task, status=status, error=error, answer_end=last.last)
    await writer.append(*terminal_chunks(ended, step_open=agent.step_open))
    await writer.control(END)
    checkpoint = await writer.drain()
    reach("before_final_commit")
    ending: EndedTask = await self._commits.end(status, error, last.messages, checkpoint, last.usage, last.last)
    return ending


MUTANTS: dict[str, Callable[[], None]] = {
    "no-fence": no_fence,
    "no-compare-and-set": no_compare_and_set,
    "terminal-before-commit": terminal_before_commit,
}


def _without(text: str, rule: str, none: str) -> str:
    """Returns the text with `none` in place of the rule. Raises LookupError if the rule is not in the text, because the
    mutant would then prove nothing."""
    if rule not in text:
        raise LookupError(f"there is no {rule!r} to switch off")
    return text.replace(rule, none)


def _patch(owner: ModuleType | type, name: str, value: object) -> None:
    if not hasattr(owner, name):
        raise LookupError(f"there is no {name} to replace")
    setattr(owner, name, value)


def main() -> None:
    name, kind = sys.argv[1:]
    MUTANTS[name]()
    del sys.argv[1:]
    if kind == "api":
        from backend.commands import serve

        serve()
    else:
        from executor.__main__ import main as execute

        execute()


if __name__ == "__main__":
    main()
