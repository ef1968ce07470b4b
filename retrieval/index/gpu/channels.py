"""What workers and the processes that call them agree on."""

# Channels: loading does not delay searches.
SEARCHES, LOADS = 0, 1


class Refused(Exception):
    """A worker is well, but cannot answer such a search."""
