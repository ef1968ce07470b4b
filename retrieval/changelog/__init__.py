"""The durable log of changes to items: append, read, archive, trim."""
