"""Writes of items: validated, embedded, appended to the change log."""
