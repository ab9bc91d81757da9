"""The commands of an operator: `doctor`, `tasks`, `dead-letters`, `backup` and `restore` of `python -m backend`."""
