"""One call at a server: who may make it, what it waits for, and how it ends."""
