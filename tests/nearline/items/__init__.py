"""Tests of the records of items."""
