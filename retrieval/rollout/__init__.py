"""Trying a snapshot beside the current one: dealt to, judged, and backed out by itself."""
