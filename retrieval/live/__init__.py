"""Live changes of a shard: documents added to its snapshot, and documents hidden in it."""
