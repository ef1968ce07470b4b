"""Evaluation of filters on attribute columns, and planning of filtered vector searches.

Operators are defined in `nearline/filters/conditions.py`, which lists where a new one is added.
"""
