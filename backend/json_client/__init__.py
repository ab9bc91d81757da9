"""What the clients of services with JSON over HTTP share: a strict reader of JSON, redaction, the wait they ask for."""
