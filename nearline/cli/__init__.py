"""The `nearline` command: the composition root of one machine."""
