"""Options of a build."""
