"""What only Nearline itself reads and writes."""
