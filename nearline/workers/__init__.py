"""Child processes that answer calls with arrays."""
