"""The JSON client: what the clients of services that answer with JSON over HTTP share."""
