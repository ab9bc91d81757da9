"""A system of several machines on this one: each API, each executor and each server of a store is a host of its own.

`make cluster` starts it for a person, `tests/faults/test_bed_*.py` use it. docs/testing.md says what it can do.
"""
