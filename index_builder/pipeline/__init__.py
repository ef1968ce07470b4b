"""Builds: from documents to a published snapshot, and its maintenance."""
