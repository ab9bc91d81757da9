"""Tests of CoPilot, and the servers, fakes and measures that they use."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The folder of the checkout."""
