"""What both programs say about themselves to whoever runs them."""

from __future__ import annotations

import sys
from typing import Any

# structlog looks for rich, to draw tracebacks with the values of variables, which we do not want: a key may be among
# them.  To load it all the same would cost a daemon 3 MiB and a twentieth of a second.
_modules: dict[str, Any] = sys.modules
if "structlog" not in _modules and "rich" not in _modules:
    _modules["rich"] = None
    import structlog as structlog

    del _modules["rich"]
