"""A small agent generator: the service at the other end of CoPilot's generator protocol."""
