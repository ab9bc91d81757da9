"""Folders, feedback about answers, share links, and imports: what users do with whole conversations."""
