"""Measures the memory that Redis needs for the histories of many users.

    python -m benchmarks.user_state_bytes --users 100000

Users are synthetic: 1 to 113 events each (57 on average), items by Zipf's law, minutes apart within
a visit and days between visits, three kinds. They are encoded as in `retrieval.users` and written
to a Redis of their own, without the log of interactions and the events of the last 24 hours. Prints
one line of JSON; bytes per user are the growth of Redis' used_memory.
"""

from __future__ import annotations

import argparse
import asyncio
import json

from benchmarks.workloads.user_states import measure_states


def main() -> None:
    """Parses the arguments, measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--users", type=int, default=100_000, help="Number of users (%(default)s).")
    parser.add_argument(
        "--seed", type=int, default=0, help="Seed of the synthetic users (%(default)s)."
    )
    options = parser.parse_args()
    print(json.dumps(asyncio.run(measure_states(options.users, options.seed))))


if __name__ == "__main__":
    main()
