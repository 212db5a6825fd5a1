"""Lets one call after the other fail, in whatever the code of the package does: for want of memory, or at the disk."""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Any, Final, Self

import realize
from realize.fs import syscalls

PACKAGE: Final = os.path.dirname(realize.__file__) + os.sep
SYSTEM_CALLS: Final = syscalls.__file__

NEVER: Final = frozenset(
    {
        "close",
        "_close",
        "_let_go",
        "_forget",
        "forget",
        "release",
        "__enter__",
        "__exit__",
        "acquire",
        "popleft",
        "popitem",
        "pop",
        "remove",
        "discard",
        "clear",
    }
)
"""What lets go of something does not fail for want of memory: it needs none, and closes also if it reports an error."""

_RESUMED: Final = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
"""A frame that goes on is seen like a call, and one that fails by that would not see its own end."""

CALLED_BACK: Final = frozenset({"_answer", "_end", "_go_on", "deliver", "_fail", "run", "dispose", "ended"})
"""Entered by a Deferred that has nobody else to tell, or to let go of something; what they call may fail."""


def _ours(code: CodeType) -> bool:
    return code.co_filename.startswith(PACKAGE)


class Fault:
    """While entered, the ``number``-th call that the package makes in this thread raises ``error`` instead.

    Without ``disk_only`` that may be any call: of a function of ours as it is entered, or of one that is written in C.
    With it, it is one of those that go to the file system.
    """

    def __init__(self, number: int, error: BaseException, *, disk_only: bool = False) -> None:
        self.number = number
        self.error = error
        self.disk_only = disk_only
        self.count = 0
        self.where = ""

    @property
    def hit(self) -> bool:
        """Whether there were so many calls."""
        return bool(self.where)

    def __enter__(self) -> Self:
        sys.setprofile(self._called)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _called(self, frame: FrameType, event: str, function: Any) -> None:
        name = self._counts(frame, event, function)
        if name:
            self.count += 1
            if self.count == self.number:
                self.where = f"{name} at {os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"
                raise self.error

    def _counts(self, frame: FrameType, event: str, function: Any) -> str:
        """The name of the call if it counts."""
        code = frame.f_code
        if not _ours(code) or code.co_name in NEVER:
            return ""
        if event == "c_call":
            to_disk = function.__module__ in {"posix", "fcntl"} and function.__name__ not in {"urandom", "fsencode"}
            return "" if function.__name__ in NEVER or (self.disk_only and not to_disk) else function.__name__
        if event != "call" or code.co_flags & (
            inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
        ):
            return ""  # a frame that goes on is not a call, and would not see its own end
        if self.disk_only:
            caller = frame.f_back
            inner = caller is not None and caller.f_code.co_filename == SYSTEM_CALLS
            to_disk = code.co_filename == SYSTEM_CALLS and not inner and code.co_name in {"syncfs", "syncs_as_a_whole"}
            return code.co_name if to_disk else ""
        return "" if code.co_name in CALLED_BACK else code.co_name


def descriptors() -> dict[str, str]:
    """What is open in this process."""
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            continue  # that of the listing itself
    return found


class Quiet:
    """Stands for Twisted's logger: takes note of failures, and goes on."""

    def __init__(self, logged: list[type[BaseException]]) -> None:
        self.logged = logged

    @contextlib.contextmanager
    def failuresHandled(self, _: str) -> Iterator[None]:
        """Go on."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 -- as it does
            self.logged.append(type(error))
