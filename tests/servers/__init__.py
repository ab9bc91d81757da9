"""Servers that tests start, hurt and stop; none of them outlives the test run."""
