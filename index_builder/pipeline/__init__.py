"""From documents to a published snapshot."""
