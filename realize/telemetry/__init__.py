"""What both programs tell their operators about themselves: logs and metrics.

Modules that may be the first to import structlog import it from here.
When structlog is imported, it imports rich if it can, to print tracebacks with the values of local variables.
We must not print those, since a key may be among them, and the import would cost a daemon 3 MiB and every process
0.05 s; so rich is hidden meanwhile.
"""

from __future__ import annotations

import sys
from typing import Any

_modules: dict[str, Any] = sys.modules
_hidden = "rich" not in _modules
if _hidden:
    _modules["rich"] = None

import structlog as structlog  # noqa: E402

if _hidden:
    del _modules["rich"]
