"""Tests of the pairs that judges are learned from."""
