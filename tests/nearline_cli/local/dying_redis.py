"""Serves like a Redis, and ends like one whose disk is full: `--port N`."""

from __future__ import annotations

import json
import sys

LOG = """\
81:C 27 Nov 2026 11:55:30.001 # WARNING Memory overcommit must be enabled!
81:M 27 Nov 2026 11:55:30.004 * Ready to accept connections tcp
81:M 27 Nov 2026 11:55:37.123 # Error writing to the AOF file: No space left on device
81:M 27 Nov 2026 11:55:37.124 # Can't recover from AOF write error when the AOF fsync policy is \
'always'. Exiting...
"""

if __name__ == "__main__":
    port = sys.argv[sys.argv.index("--port") + 1]
    print(json.dumps({"event": "serving", "address": f"127.0.0.1:{port}"}))
    print(LOG)
    sys.exit(1)
