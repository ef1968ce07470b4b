"""A search from request to hits: queries, fan-out, merge, fusion, payloads."""
