"""Recommendation lists: candidates, ranking, rules, explanations."""
