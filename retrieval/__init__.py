"""The retrieval service: FAISS shards behind a stateless router."""
