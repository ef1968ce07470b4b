"""Messages that only Nearline itself reads and writes."""
