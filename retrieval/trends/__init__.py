"""Popular, trending and co-visited items, counted from the interactions as they are recorded."""
