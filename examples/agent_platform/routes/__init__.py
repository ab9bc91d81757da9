"""The routes of the platform's API."""
