"""Values that clients get: chunks, SSE frames, tool responses, UI messages. No I/O."""
