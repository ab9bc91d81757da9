"""Tool servers at which each user signs in: discovery, tokens, and connections of users."""
