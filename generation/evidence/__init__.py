"""Finds evidence for a question, ranks its sentences, and decides whether it suffices."""
