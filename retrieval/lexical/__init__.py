"""The lexical leg of a shard: BM25 over words, with the statistics of the whole collection."""
