"""The licences of all Python packages that are installed with this one."""

from __future__ import annotations

import re
from importlib.metadata import Distribution, distributions

ALLOWED = frozenset(
    {
        "MIT",
        "MIT-0",
        "MIT-CMU",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "Apache-2.0",
        "ISC",
        "PSF-2.0",
        "MPL-2.0",
        "Unlicense",
        "0BSD",
    }
)
"""Licences that allow use in any product. MPL-2.0 asks for changes of its own files only."""
OLD_NAMES = {
    "MIT License": "MIT",
    "BSD License": "BSD-3-Clause",
    "BSD 2-Clause License": "BSD-2-Clause",
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "BSD-3-Clause, Apache-2.0, dependency licenses": "BSD-3-Clause",  # pypdfium2, in which PDFium is
    "Apache Software License": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "ISC License": "ISC",
    "ISC License (ISCL)": "ISC",
    "Python Software Foundation License": "PSF-2.0",
}
"""Names from before SPDX expressions (PEP 639), in the field License or in a classifier."""


def licences_of(package: Distribution) -> set[str]:
    """Returns the SPDX identifiers in the package's metadata; names without one as they stand."""
    metadata = package.metadata
    text = metadata.get("License-Expression") or (metadata.get("License") or "").partition("\n")[0]
    if not text:
        classifiers = [line for line in metadata.get_all("Classifier") or [] if line.startswith("License ::")]
        return {OLD_NAMES.get(name := line.rpartition(" :: ")[2], name) for line in classifiers}
    if text in OLD_NAMES:
        return {OLD_NAMES[text]}
    return set(re.split(r" (?:AND|OR|WITH) |[()]", text)) - {""}


def test_every_package_has_a_licence_that_may_be_used() -> None:
    found = {package.name: licences_of(package) for package in distributions()}
    assert {name: names for name, names in found.items() if not names or not names <= ALLOWED} == {}
