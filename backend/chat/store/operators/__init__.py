"""Readings of the whole database for operators: numbers and states, and no text of a user."""
