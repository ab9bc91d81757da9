"""Streams of tasks in Redis: one flusher writes them, one hub follows them, readers begin at any cursor."""
