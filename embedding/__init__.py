"""The embedding service: text to vectors, batched under a token budget."""
