"""A small agent generator: an implementation of the other side of CoPilot's generator protocol."""
