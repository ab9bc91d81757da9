"""Failures of fetching and searching, each with a stable code and a sentence for the model and the user."""

from __future__ import annotations


class WebFailure(Exception):
    """A page could not be fetched, or the web not be searched. `code` is stable; the message can be shown."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
