"""The licences of all Python packages that are installed with this one."""

from __future__ import annotations

import re
from importlib.metadata import Distribution, distributions

import pytest

ALLOWED = frozenset(
    {"MIT", "MIT-0", "MIT-CMU", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0", "ISC", "PSF-2.0", "CNRI-Python"}
    | {"MPL-1.1", "MPL-2.0", "Unlicense", "0BSD"}
)
"""Licences that allow use in any product. Those of Mozilla ask for changes of their own files only."""
OLD_NAMES = {
    "MIT License": "MIT",
    "BSD": "BSD-2-Clause",  # pyasn1-modules
    "BSD License": "BSD-3-Clause",
    "BSD 2-Clause License": "BSD-2-Clause",
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "The BSD 2-Clause License": "BSD-2-Clause",
    "BSD-3-Clause, Apache-2.0, dependency licenses": "BSD-3-Clause AND Apache-2.0",  # pypdfium2; PDFium has these, too
    "ISC License": "ISC",
    "ISC License (ISCL)": "ISC",
    "Python Software Foundation License": "PSF-2.0",
}
"""Names from before SPDX expressions (PEP 639), in the field License or in a classifier."""


def licence_of(package: Distribution) -> str:
    """Returns the SPDX expression of the package, or its licence's name as its metadata has it."""
    metadata = package.metadata
    text = metadata.get("License-Expression") or (metadata.get("License") or "").partition("\n")[0]
    if not text:
        classifiers = [line for line in metadata.get_all("Classifier") or [] if line.startswith("License ::")]
        text = " AND ".join(OLD_NAMES.get(name := line.rpartition(" :: ")[2], name) for line in classifiers)
    return OLD_NAMES.get(text, text)


def may_be_used(expression: str) -> bool:
    """Returns True if the expression allows what ALLOWED does: all of an AND, and one of an OR, which binds less."""
    while inner := re.search(r"\(([^()]*)\)", expression):
        expression = expression.replace(inner[0], "MIT" if may_be_used(inner[1]) else "no", 1)
    choices = (choice.split(" AND ") for choice in expression.split(" OR "))
    return any(all(part.partition(" WITH ")[0].strip() in ALLOWED for part in choice) for choice in choices)


@pytest.mark.parametrize(
    ("expression", "usable"),
    [
        ("MIT", True), ("", False), ("GPL-3.0-only", False), ("MIT AND GPL-3.0-only", False),
        ("GPL-2.0-only OR MIT", True), ("MIT AND (GPL-2.0-only OR ISC)", True),
        ("(MIT OR ISC) AND GPL-2.0-only", False), ("MIT OR GPL-2.0-only AND ISC", True),
        ("Apache-2.0 WITH LLVM-exception", True),
    ],
)  # fmt: skip
def test_expressions_are_understood(expression: str, usable: bool) -> None:
    assert may_be_used(expression) is usable


def test_every_package_has_a_licence_that_may_be_used() -> None:
    found = {package.name: licence_of(package) for package in distributions()}
    assert {name: licence for name, licence in found.items() if not may_be_used(licence)} == {}
