"""The connection to Redis, its durability, and its cool-down after a failure."""
