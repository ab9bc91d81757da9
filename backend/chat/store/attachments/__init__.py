"""Rows of files that users give with their messages. Their bytes are elsewhere (`backend/files/storage.py`)."""
