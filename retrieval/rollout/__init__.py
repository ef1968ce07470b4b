"""Canary rollouts: split traffic, analyse both arms, back out automatically."""
