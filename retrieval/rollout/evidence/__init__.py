"""Anytime-valid sequential tests, based on betting."""
