"""Vector, lexical and Milvus indexes: writers, measurements and selection."""
