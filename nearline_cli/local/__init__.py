"""Processes of one machine: their plan, their supervisor, a bundled Redis."""
