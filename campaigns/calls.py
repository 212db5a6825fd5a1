"""Hitting a process at a single system call: killed as it begins the call, kept waiting, or told an error.

strace(1) does it; the process is the one that was started, and its tracer a grandchild.
"""

from __future__ import annotations

import random
from typing import Final

_LASTING: Final = ("fsync", "syncfs", "fdatasync")
_NAMING: Final = ("/rename", "/^link", "/unlink", "/symlink", "/mkdir")
_GIVING: Final = ("fsetxattr", "fremovexattr", "fchown", "/chown", "fchmod", "utimensat")
_CONTENT: Final = ("pwrite64", "ftruncate", "flock")

ERRORS: Final = {
    "fsetxattr": ("EIO", "ENOSPC", "EOPNOTSUPP", "EPERM", "E2BIG", "EDQUOT"),
    "fremovexattr": ("EIO", "EPERM"),
    "fgetxattr": ("EIO",),
    "fchown": ("EIO", "EPERM", "ENOSYS", "EDQUOT"),
    "fchmod": ("EIO",),
    "/^link": ("EIO", "EPERM", "EMLINK", "ENOSPC", "ENOSYS"),
    "/rename": ("EIO", "ENOSPC"),
    "/unlink": ("EIO", "EPERM"),
    "/symlink": ("EIO", "ENOSPC"),
    "fsync": ("EIO",),
    "syncfs": ("EIO",),
    "pwrite64": ("EIO", "ENOSPC"),
    "ftruncate": ("EIO",),
}
"""What each call can say; not what it says where something is not supported and need not be, such as a mode."""


def at_a_call(rng: random.Random) -> tuple[str, list[str]]:
    """What happens at which call, and the beginning of a command line for it."""
    kind = rng.choice(["kill", "kill", "error", "slow"])
    if kind == "error":
        call = rng.choice(list(ERRORS))
        first, step = rng.choice([1, 2, 5, 20]), rng.choice(["", "", "+1", "+3"])
        what = f"error={rng.choice(ERRORS[call])}:when={first}{step}"
    else:
        call = rng.choice([*_GIVING, *_GIVING, *_NAMING, *_LASTING, *_CONTENT])
        when = rng.choice([1, 2, 3, 5, 8, 13, 30])
        what = f"signal=KILL:when={when}" if kind == "kill" else f"delay_enter=1500000:when={when}"
    tracer = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:{what}"]
    return f"{kind} at {call.strip('/^')}", [*tracer[:3], "--seccomp-bpf", *tracer[3:]]
