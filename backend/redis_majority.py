"""Asks several servers the same question at once and takes the answer of most: one that is cut off may be behind."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from backend.errors import NoMaster

ANSWER_LIMIT = 1.0
"""Seconds to connect to one server, and again for its answer."""
FIND_LIMIT = 2.0
"""Seconds in which all servers are asked."""


Answer = TypeVar("Answer", bound=tuple[Any, ...])


async def majority(asked: Iterable[Coroutine[Any, Any, Answer | str]], nobody: str) -> Answer:
    """Returns the most common answer. A text is no answer, but why a server gave none.

    Returns as soon as more than half of all servers agree, at the latest after FIND_LIMIT. No question is left running.
    Raises NoMaster, with `nobody` and what the servers said, if none gives an answer.
    """
    answers: Counter[Answer] = Counter()
    reasons: list[str] = []
    asking = [asyncio.ensure_future(one) for one in asked]
    try:
        async with asyncio.timeout(FIND_LIMIT):
            for answered in asyncio.as_completed(asking):
                answer = await answered
                if isinstance(answer, str):
                    reasons.append(answer)
                    continue
                answers[answer] += 1
                if 2 * answers[answer] > len(asking):
                    break
    except TimeoutError:
        reasons.append("the others do not answer")
    finally:
        for one in asking:
            one.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    if not answers:
        raise NoMaster(f"{nobody}: {'; '.join(reasons)}")
    [(most_common, _)] = answers.most_common(1)
    return most_common
