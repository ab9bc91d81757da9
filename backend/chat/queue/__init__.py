"""The turn queue (an interface and two adapters), the outbox in front of it, and the stream of completions."""
