"""No wait of a test has a limit that a slow machine does not stretch: tests.speed.limit makes all of them."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.speed import slowness

KNOWN = os.environ.get("TEST_SLOWNESS")
TESTS = Path(__file__).parent.parent
LIMITS = re.compile(r"(LIMIT|WITHIN|SOON|IN_TIME|PATIENCE)$")
KEYWORDS = {"timeout", "within", "ready_within"}
NOT_YET = "asyncio.wait"
"""With less than a second it is a look that must find nothing, and a slow machine makes that no harder."""
SIZES = {"_LINE_LIMIT"}
WAITS = {"asyncio.timeout": 0, "asyncio.wait_for": 1}
"""The calls that give up, and the place of their limit among the arguments."""


def naked_limits(code: str) -> Iterator[str]:
    """Yields each line with a limit in plain seconds: a number, or a constant that is one."""
    tree = ast.parse(code)
    plain = {name for name, value in _constants(tree) if _is_plain(value, frozenset())}
    for name, value in _constants(tree):
        if LIMITS.search(name) and name not in SIZES and _is_plain(value, frozenset()):
            yield f"{value.lineno}: {name} = {ast.unparse(value)}"
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        place = WAITS.get(ast.unparse(call.func))
        given = call.args[place:][:1] if place is not None else []
        given += [one.value for one in call.keywords if one.arg in KEYWORDS and not _is_look(call, one.value)]
        if any(_is_plain(value, frozenset(plain)) for value in given):
            yield f"{call.lineno}: {ast.unparse(call)}"


def _is_look(call: ast.Call, value: ast.expr) -> bool:
    return ast.unparse(call.func) == NOT_YET and isinstance(value, ast.Constant) and float(str(value.value)) < 1


def _constants(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            yield node.target.id, node.value


def _is_plain(value: ast.expr, plain: frozenset[str]) -> bool:
    """Returns whether it is made of numbers, of `scale`, and of constants that are plain."""
    match value:
        case ast.Constant():
            return isinstance(value.value, int | float)
        case ast.Name():
            return value.id in plain
        case ast.BinOp():
            return _is_plain(value.left, plain) and _is_plain(value.right, plain)
        case ast.Call():
            return ast.unparse(value.func) == "scale"
    return False


@pytest.mark.parametrize(
    "code",
    [
        "async with asyncio.timeout(5): pass",
        "LIMIT = 20.0",
        "A = 5\nasync def f():\n    await asyncio.wait_for(job, A + 1)",
        "_WITHIN = scale(60, 900)",
        "await asyncio.wait(jobs, timeout=5)",
    ],
)
def test_a_naked_limit_is_found(code: str) -> None:
    assert len(list(naked_limits(code))) == 1


@pytest.mark.parametrize("code", ["LIMIT = limit(20)\nasync def f():\n    await asyncio.wait_for(job, LIMIT)", "N = 5"])
def test_a_limit_that_stretches_is_none(code: str) -> None:
    assert list(naked_limits(code)) == []


def test_the_slowness_is_known_when_test_modules_are_imported() -> None:
    """Their constants are made then; in a worker of xdist it is what the process that prints has measured."""
    assert KNOWN is not None
    assert float(KNOWN) == slowness()


def test_every_limit_of_the_tests_stretches() -> None:
    files = (path for path in TESTS.rglob("*.py") if not {"fakes", "node_modules"} & set(path.parts))
    found = [f"{path.relative_to(TESTS)}:{line}" for path in files for line in naked_limits(path.read_text())]
    assert found == []
