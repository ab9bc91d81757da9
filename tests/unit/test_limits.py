"""Checks that tests.speed.limit makes every limit of a wait in the tests, so that slow machines get longer ones."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator

import pytest

from tests import ROOT
from tests.speed import slowness

KNOWN = os.environ.get("TEST_SLOWNESS")
TESTS = ROOT / "tests"
LIMITS = re.compile(r"(LIMIT|WITHIN|SOON|IN_TIME|PATIENCE)$")
KEYWORDS = {"timeout", "within", "ready_within"}
CHECK = "asyncio.wait"
"""Waits of less than a second with this call check that nothing happens, which a slow machine does not prevent."""
SIZES = {"_LINE_LIMIT"}
WAITS = {"asyncio.timeout": 0, "asyncio.wait_for": 1}
"""The calls with a limit, and the position of the limit among their arguments."""


def unscaled_limits(code: str) -> Iterator[str]:
    """Yields each line with a limit in plain seconds, given as a number or as a constant."""
    tree = ast.parse(code)
    plain = {name for name, value in _constants(tree) if _is_plain(value, frozenset())}
    for name, value in _constants(tree):
        if LIMITS.search(name) and name not in SIZES and _is_plain(value, frozenset()):
            yield f"{value.lineno}: {name} = {ast.unparse(value)}"
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        place = WAITS.get(ast.unparse(call.func))
        given = call.args[place:][:1] if place is not None else []
        given += [one.value for one in call.keywords if one.arg in KEYWORDS and not _is_short_check(call, one.value)]
        if any(_is_plain(value, frozenset(plain)) for value in given):
            yield f"{call.lineno}: {ast.unparse(call)}"


def _is_short_check(call: ast.Call, value: ast.expr) -> bool:
    return ast.unparse(call.func) == CHECK and isinstance(value, ast.Constant) and float(str(value.value)) < 1


def _constants(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            yield node.target.id, node.value


def _is_plain(value: ast.expr, plain: frozenset[str]) -> bool:
    """Returns True if `value` consists of numbers, of `scale`, and of plain constants."""
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
def test_a_limit_in_plain_seconds_is_found(code: str) -> None:
    assert len(list(unscaled_limits(code))) == 1


@pytest.mark.parametrize("code", ["LIMIT = limit(20)\nasync def f():\n    await asyncio.wait_for(job, LIMIT)", "N = 5"])
def test_a_scaled_limit_is_not_reported(code: str) -> None:
    assert list(unscaled_limits(code)) == []


def test_the_slowness_is_known_when_test_modules_are_imported() -> None:
    """Test modules build their limits at import; a worker of xdist uses what the main process measured."""
    assert KNOWN is not None
    assert float(KNOWN) == slowness()


def test_every_limit_in_the_tests_is_scaled() -> None:
    files = (path for path in TESTS.rglob("*.py") if not {"fakes", "node_modules"} & set(path.parts))
    found = [f"{path.relative_to(TESTS)}:{line}" for path in files for line in unscaled_limits(path.read_text())]
    assert found == []
