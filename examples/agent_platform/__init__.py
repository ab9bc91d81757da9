"""A small agent platform: it runs the graphs of agents. The other side of CoPilot's platform contract."""
