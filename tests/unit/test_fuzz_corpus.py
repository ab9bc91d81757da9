"""The seeds of the fuzz targets, each as it is and with a few changes that a seed of random numbers decides."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parents[1] / "fuzz/corpus"
SEEDS = [(path.parent.name, path.name) for path in sorted(CORPUS.glob("*/*"))]
CHANGES = 40


def test_every_target_has_seeds() -> None:
    assert {name for name, _ in SEEDS} == set(TARGETS)


@pytest.mark.parametrize(("target", "seed"), SEEDS)
def test_a_decoder_keeps_its_promises(target: str, seed: str) -> None:
    data = (CORPUS / target / seed).read_bytes()
    chance = random.Random(f"{target}/{seed}")
    TARGETS[target](data)
    for _ in range(CHANGES):
        TARGETS[target](changed(data, chance))


def changed(data: bytes, chance: random.Random) -> bytes:
    """Returns the data with up to four bytes replaced, a piece doubled, and the end cut off."""
    text = bytearray(data)
    for _ in range(chance.randrange(5)):
        if text:
            text[chance.randrange(len(text))] = chance.choice([*b'{}[]",:\\\r\n 0-9\x00\xff', chance.randrange(256)])
    if chance.random() < 0.3:
        start = chance.randrange(len(text) + 1)
        text[start:start] = text[start : start + chance.randrange(200)]
    return bytes(text[: chance.randrange(len(text) + 1)] if chance.random() < 0.2 else text)
