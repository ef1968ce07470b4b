"""Parts of the soak: samples of processes, and trends in them."""
