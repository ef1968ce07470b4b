"""Answers measured and learned over many collections: folders, manuals, articles."""
