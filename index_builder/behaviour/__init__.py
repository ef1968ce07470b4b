"""Models trained on interactions, as part of a snapshot."""
