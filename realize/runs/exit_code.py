"""How a run ends, as an `ExitCode`; pure."""

from __future__ import annotations

from realize.errors import DeadlineReached, RealizeError
from realize.exit_codes import ExitCode


def exit_code_of(error: BaseException | None, *, failed: bool = False) -> ExitCode:
    """Choose the exit code of a run that ``error`` ended, None being its proper end.

    ``failed`` says that something failed on the way: that outranks a time limit, and nothing else that ends a run.
    """
    match error:
        case None:
            return ExitCode.FAILED if failed else ExitCode.DONE
        case DeadlineReached() if failed:
            return ExitCode.FAILED
        case RealizeError():
            return error.exit_code
        case KeyboardInterrupt():
            return ExitCode.INTERRUPTED
        case _:
            return ExitCode.FAILED
