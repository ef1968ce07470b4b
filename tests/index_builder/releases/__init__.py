"""Tests of the release gate and of replay."""
