"""Vectors on GPUs, compared in worker processes; the index on the CPU answers if a GPU cannot."""
