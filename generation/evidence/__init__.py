"""Evidence: found, read, measured against a question, and whether it is enough."""
