"""The files of conversations: their workspaces, and the end of what nobody may read."""
