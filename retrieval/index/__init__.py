"""A searchable segment: its vectors, words, attributes and stored items."""
