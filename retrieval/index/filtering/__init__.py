"""Filters over attribute columns, and the plan that carries them out."""
