"""How many cores numpy may take for one product of matrices."""

from __future__ import annotations

from threadpoolctl import threadpool_limits


def use_one_core() -> None:
    """Keeps each product of this process on the core of the thread that asks for it.

    The threads of BLAS wait for each other in a loop. Where all cores are busy anyhow, the product
    of 50,000 x 64 factors with a vector so takes twice the processor time (7.8 instead of 4.5 ms
    for a whole list), and searches beside it wait. Call it once all libraries are loaded.
    """
    threadpool_limits(1, "blas")
