"""User interactions: read, cleaned, merged, and split for evaluation."""
