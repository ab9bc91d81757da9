"""Sends events to the endpoints of users: the message, the attempt, and when to try again."""
