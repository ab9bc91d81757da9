"""Renderings of a task in the protocols of other clients: OpenAI, AG-UI and A2A."""
