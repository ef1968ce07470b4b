"""Writers of vector, lexical and Milvus indexes, and the choice between index types."""
