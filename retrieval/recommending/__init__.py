"""How a recommended list is made for a surface."""
