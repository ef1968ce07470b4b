"""Storage backends of a snapshot store: a local folder or an object store."""
