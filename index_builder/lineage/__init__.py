"""A snapshot's parent, and the changes that lie between the two."""
