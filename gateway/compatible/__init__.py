"""Interfaces of other systems, so that their clients work unchanged."""
