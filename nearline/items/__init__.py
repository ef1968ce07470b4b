"""Documents and attributes of items, validated before they are indexed."""
