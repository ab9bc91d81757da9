"""Stand-ins for services of others: processes of their own, real HTTP, `python -m tests.fakes.<name> PORT`."""
