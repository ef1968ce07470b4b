"""Releases: whether a snapshot may go live, and how it answers what the live one was asked."""
