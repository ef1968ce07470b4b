"""Validates and embeds writes of items, and appends them to the change log."""
