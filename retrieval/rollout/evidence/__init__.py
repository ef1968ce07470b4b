"""Tests that may be looked at all the time: evidence as what a bet against the canary has become."""
