"""Tests that may be looked at all the time: evidence is what a bet on harm has become."""
