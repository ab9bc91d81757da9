"""Acts on files: storing one, writing those of a workspace, and deleting those that have expired."""
