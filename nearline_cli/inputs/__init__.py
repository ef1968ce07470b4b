"""Rows, files and sources that users pass to commands."""
