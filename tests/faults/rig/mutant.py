"""Our processes with one rule of theirs switched off, to prove that the checker finds what the rule prevents.

python -m tests.faults.rig.mutant NAME executor|api

no-fence                a stream takes what an older attempt appends after a newer one
no-compare-and-set      a step's commit and the end do not ask whether the attempt and its owner still stand
terminal-before-commit  the stream says its end before Postgres does
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha1
from types import ModuleType
from typing import Any

from backend.chat import scripts, tasks
from backend.chat.chunks import END
from backend.chat.models import Ending, TaskError, TaskStatus
from backend.chat.snapshot import terminal_chunks
from backend.chat.writing import StreamWriter
from backend.failpoints import reach
from executor import attempt
from executor.agent.agent import Agent, Commit

_REFUSAL = "if tonumber(top_fence) > tonumber(fence) then return 3 end"
_NO_REFUSAL = """
  if tonumber(top_fence) > tonumber(fence) then
    fence, first = top_fence, top_seq + 1
    last = first + size - 1
    return nil, first
  end"""
_CHECK = "AND attempt = $2 AND owner = $3 AND status = 'running'"
_NO_CHECK = "AND $2::int IS NOT NULL AND $3::text IS NOT NULL"


def no_fence() -> None:
    script = scripts.Script("append")
    object.__setattr__(script, "text", _without(script.text, _REFUSAL, _NO_REFUSAL))
    object.__setattr__(script, "digest", sha1(script.text.encode(), usedforsecurity=False).hexdigest())
    _patch(scripts, "_APPEND", script)


def no_compare_and_set() -> None:
    for name in ("_COMMIT_STEP", "_FINISH"):
        _patch(tasks, name, _without(getattr(tasks, name), _CHECK, _NO_CHECK))


def terminal_before_commit() -> None:
    _patch(attempt.Attempt, "_end", _end_the_stream_first)


async def _end_the_stream_first(
    self: Any, agent: Agent, writer: StreamWriter, status: TaskStatus, error: TaskError | None, last: Commit
) -> Ending:
    self._ending = True
    ended = replace(self._task, status=status, error=error)
    await writer.append(*terminal_chunks(ended, step_open=agent.step_open, reason=last.last))
    await writer.control(END)
    await writer.drain()
    reach("before_final_commit")
    ending: Ending = await self._commits.end(status, error, last.messages, last.usage)
    return ending


MUTANTS: dict[str, Callable[[], None]] = {
    "no-fence": no_fence,
    "no-compare-and-set": no_compare_and_set,
    "terminal-before-commit": terminal_before_commit,
}


def _without(text: str, rule: str, none: str) -> str:
    """Raises when the rule is not where it was: then this mutant proves nothing any more."""
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
