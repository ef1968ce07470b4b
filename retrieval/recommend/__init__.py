"""Recommendation lists: candidates, ranking, rules and explanations."""
