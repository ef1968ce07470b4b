"""The Redis client: connections, reads, durability, and the cool-down after a failure."""
