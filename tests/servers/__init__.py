"""Servers that tests start, damage and stop. None of them outlives the test run."""
