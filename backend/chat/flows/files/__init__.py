"""Acts on files: storing one, and deleting those that have expired."""
