"""What a snapshot knows of behaviour, as a request uses it."""
