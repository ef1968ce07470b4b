"""What is learned from interactions, for a snapshot to carry."""
