"""A script that fetches what a daemon has for us.

python docs/examples/fetch.py nas::outbox /data/in
"""

import sys

from realize import api

if len(sys.argv) != 3:
    raise SystemExit(__doc__)
try:
    summary = api.blocking(api.move, sys.argv[1], sys.argv[2])
except api.RealizeError as error:
    raise SystemExit(f"fetch: {error}") from error
print(f"{summary.arrived} files fetched, {summary.failed} failed")
raise SystemExit(summary.exit_code)
