"""Live changes beside an immutable shard: what they added, what they hid."""
