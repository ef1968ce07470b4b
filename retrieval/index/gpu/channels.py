"""Channels of the workers: loading does not delay searches."""

SEARCHES, LOADS = 0, 1
