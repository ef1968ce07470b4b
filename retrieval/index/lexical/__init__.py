"""BM25 over the words of a snapshot."""
