"""Models on GPUs, each in a worker process, with the CPU as their substitute."""
