"""Readers of corpus files: each yields rows one by one and counts unreadable ones."""
