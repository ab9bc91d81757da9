"""Fuzzing of the decoders that read bytes of strangers. `make fuzz` runs it; `make test` replays the seeds."""
