"""The files that users give with their messages: where their bytes are, what kinds there are, and how they are read."""
