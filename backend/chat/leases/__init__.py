"""Leases in Redis: the heartbeats of executors, and the locks of sessions."""
