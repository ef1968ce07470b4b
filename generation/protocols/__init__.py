"""Seams between the rooms of the generation service, and what every room may read."""
