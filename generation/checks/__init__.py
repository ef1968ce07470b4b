"""Checks of answers: citations, groundedness, links and markers."""
