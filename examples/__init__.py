"""Programs beside the service that show how others work with it."""
