"""Webhooks of users: the endpoints, and what they are told."""
