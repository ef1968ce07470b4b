"""Evaluation of filters on attribute columns, and planning of filtered vector searches."""
