"""Sign-in of users at tool servers by OAuth 2.1: values, their encryption, requests to a token endpoint."""
