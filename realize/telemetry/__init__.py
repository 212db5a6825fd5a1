"""What both programs say about themselves to whoever runs them.

Whoever may be the first to need structlog takes it from here: it looks for rich, to draw tracebacks with the values of
variables, which we do not want: a key may be among them.
To load that all the same would cost a daemon 3 MiB, and every process a twentieth of a second.
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
