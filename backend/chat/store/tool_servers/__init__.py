"""Sign-ins at tool servers: the tokens of users, the links by which they sign in, and this service as a client."""
