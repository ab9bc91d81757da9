"""Published agents and feature requests: what all signed-in users of the deployment may read."""
