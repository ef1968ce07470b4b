"""The queue of documents: taken in at the door, kept in Redis, processed by workers."""
