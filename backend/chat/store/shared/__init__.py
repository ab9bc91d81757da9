"""Rows that users share with all signed-in users of the deployment: published agents, and requests for features."""
