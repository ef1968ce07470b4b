"""User interactions: read, cleaned, and split for evaluation."""
