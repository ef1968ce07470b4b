"""Checks: what an answer says against what its sources say."""
