"""Figures about the readability of the code. `make measures` prints them, and `make check` limits some of them.

    python -m tests.measures

The figures are the modules in each folder of backend/chat, the imports between its folders, the longest functions,
functions with the same code, and the share of docstrings that open with a headless clause ("What came since ...",
"Whether it ...").
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from tests import ROOT

PACKAGES = ("backend", "executor")
TESTS = ("tests", "bench")
MAX_HEADLESS = 0.03
_HEADLESS = re.compile(
    r"(What|Who|Whoever|Whether|Where|Which|How|As|By|Of|Why|When|Those|All|That|From|For|Else|None|False|True)\b"
)
"""First words of a docstring that has no verb of its own."""
_MOST_FUNCTIONS = 10
_SHORTEST_REPEAT = 6
_COMMENT = re.compile(r"^\s*(?://|/\*\*)\s*(\w+)")


@dataclass(frozen=True)
class Docstring:
    where: str
    text: str

    @property
    def headless(self) -> bool:
        return _HEADLESS.match(self.text.strip()) is not None


def modules(packages: Sequence[str] = PACKAGES) -> dict[str, ast.Module]:
    """Returns the modules of those packages by dotted name."""
    found = {}
    for package in packages:
        for file in sorted((ROOT / package).rglob("*.py")):
            if "node_modules" not in file.parts:
                name = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
                found[name] = ast.parse(file.read_text("utf-8"))
    return found


def docstrings(packages: Sequence[str] = PACKAGES) -> list[Docstring]:
    """Returns every docstring of those packages."""
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    return [
        Docstring(f"{name}.{getattr(node, 'name', '')}".rstrip("."), text)
        for name, tree in modules(packages).items()
        for node in ast.walk(tree)
        if isinstance(node, kinds) and (text := ast.get_docstring(node))
    ]


def page_comments() -> list[Docstring]:
    """Returns the first line of every comment in web/src that has lines of its own."""
    found = []
    for file in sorted((ROOT / "web" / "src").rglob("*.ts*")):
        before = ""
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
            if _COMMENT.match(line) and not before.lstrip().startswith(("//", "*", "/*")):
                found.append(Docstring(f"{file.relative_to(ROOT)}:{number}", line.lstrip("/* ")))
            before = line
    return found


KINDS: dict[str, Callable[[], list[Docstring]]] = {
    "docstrings": docstrings,
    "docstrings of tests and benchmarks": lambda: docstrings(TESTS),
    "comments of the page": page_comments,
}
"""The texts whose openings are counted."""


def headless_share(texts: list[Docstring]) -> float:
    return sum(text.headless for text in texts) / max(1, len(texts))


def module_counts() -> dict[str, int]:
    """Returns the number of modules in each folder of backend/chat."""
    chat = ROOT / "backend" / "chat"
    folders = [chat, *sorted(path for path in chat.iterdir() if path.is_dir() and path.name != "__pycache__")]
    return {
        str(folder.relative_to(ROOT)): sum(file.stem != "__init__" for file in folder.glob("*.py"))
        for folder in folders
    }


def imports_between_folders(trees: dict[str, ast.Module]) -> set[tuple[str, str]]:
    """Returns the pairs of folders of backend/chat of which the first imports the second."""
    found = set()
    for name, tree in trees.items():
        if not name.startswith("backend.chat."):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("backend.chat"):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                found |= {(_folder(name), _folder(target)) for target in names if _folder(target)}
    return {(one, other) for one, other in found if one != other}


def _folder(module: str) -> str:
    parts = module.split(".")
    return parts[2] if len(parts) > 2 else ""


def levels(pairs: set[tuple[str, str]]) -> int:
    """Returns the number of folders in the longest chain of imports. Raises RecursionError if the imports are
    circular."""
    below = defaultdict(set)
    for one, other in pairs:
        below[one].add(other)

    def height(folder: str) -> int:
        return 1 + max((height(other) for other in below.get(folder, ())), default=0)

    return max((height(folder) for folder in list(below)), default=1)


def functions(trees: dict[str, ast.Module]) -> Iterator[tuple[str, int, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Yields each function's name, its length in lines, and its syntax tree."""
    for name, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{name}.{node.name}", (node.end_lineno or node.lineno) - node.lineno + 1, node


def repeats(trees: dict[str, ast.Module]) -> list[tuple[str, str]]:
    """Returns pairs of functions of at least six lines whose code is the same except for names and texts."""
    by_shape = defaultdict(list)
    for name, length, node in functions(trees):
        if length >= _SHORTEST_REPEAT:
            by_shape[_shape(node)].append(name)
    return [pair for names in by_shape.values() for pair in combinations(names, 2)]


def _shape(function: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    body = function.body[1:] if ast.get_docstring(function) else function.body
    text = "\n".join(ast.dump(statement) for statement in body)
    return re.sub(r"(id|attr|arg|name|value)='(?:[^'\\]|\\.)*'", r"\1=_", text)


def main() -> None:
    trees = modules()
    pairs = imports_between_folders(trees)
    lengths = sorted(((length, name) for name, length, _ in functions(trees)), reverse=True)
    print("modules in each folder of backend/chat")
    for folder, count in module_counts().items():
        print(f"  {count:3}  {folder}")
    print(f"imports between folders of backend/chat: {len(pairs)}, {levels(pairs)} levels")
    print(f"functions: {len(lengths)}, over 40 lines: {sum(length > 40 for length, _ in lengths)}; the longest:")
    for length, name in lengths[:_MOST_FUNCTIONS]:
        print(f"  {length:3}  {name}")
    same = repeats(trees)
    print(f"pairs of functions with the same code except for names: {len(same)}")
    for one, other in same:
        print(f"  {one}  {other}")
    for kind, find in KINDS.items():
        texts = find()
        share = headless_share(texts)
        print(
            f"{kind} that open with a headless clause: "
            f"{sum(text.headless for text in texts)} of {len(texts)} ({share:.1%})"
        )


if __name__ == "__main__":
    main()
