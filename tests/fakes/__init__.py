"""Stand-ins for outside services. Each is a process with a real HTTP server: `python -m tests.fakes.<name> PORT`."""
