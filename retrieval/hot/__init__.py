"""Hot lists: shared lists of items kept near, then in Redis, and computed once when in neither."""
