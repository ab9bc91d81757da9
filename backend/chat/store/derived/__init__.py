"""Rows that are made from messages and can be made again: the words that the search knows, and summaries."""
