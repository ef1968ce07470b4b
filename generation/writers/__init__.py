"""Writers that turn evidence into an answer, and the order in which they are tried."""
