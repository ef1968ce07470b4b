"""Live changes through real processes: histories with kills, and reading one's own writes."""
