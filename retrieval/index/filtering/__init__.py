"""Evaluation of filters on attribute columns, and planning of filtered vector searches.

Operators are defined in `nearline/filters.py`, which lists where a new one is added.
"""
