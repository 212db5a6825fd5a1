"""What the program after a run is told: the JSON object on its standard input; pure.

Runs that end while the program is still at work are told together, once it has ended.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from typing import Final

from attrs import evolve, frozen

from realize.by_value import ByValue
from realize.errors import RealizeError
from realize.exit_codes import ExitCode
from realize.json_fields import error_fields, path_fields, printable, utc_text
from realize.moves.status import RunResult

MAX_NAMED_FILES: Final = 100
"""Files that failed which are named."""

_GOOD_CODE: Final = ExitCode.DONE.name.lower()


@frozen(eq=False, repr=False)
class AfterReport(ByValue):
    """What ``runs`` runs of a move did.

    ``result`` adds them up, and ``failed`` has the first of the files that could not be moved, with their errors.
    """

    move: str
    result: RunResult
    failed: Sequence[tuple[bytes, RealizeError]] = ()
    runs: int = 1

    def followed_by(self, later: AfterReport) -> AfterReport:
        """Both together.

        Counts are added up; ``run`` is the id of the last run, and ``error`` and ``code`` are those of the last one
        that did not end well.
        """
        first, last = self.result, later.result
        trouble = first if last.code == _GOOD_CODE != first.code else last
        return AfterReport(
            self.move,
            evolve(
                last,
                began=first.began,
                moved_files=first.moved_files + last.moved_files,
                moved_bytes=first.moved_bytes + last.moved_bytes,
                failed_files=first.failed_files + last.failed_files,
                error=trouble.error,
                code=trouble.code,
            ),
            [*self.failed, *later.failed][:MAX_NAMED_FILES],
            self.runs + later.runs,
        )

    def to_json(self) -> bytes:
        """The object as docs/moves.md has it, on one line."""
        result = self.result
        row = {
            "move": self.move,
            "runs": self.runs,
            "run": result.run,
            "began": _time(result.began),
            "ended": _time(result.ended),
            "moved_files": result.moved_files,
            "moved_bytes": result.moved_bytes,
            "failed_files": result.failed_files,
            "code": result.code,
            "error": printable(result.error),
            "failed": [{**path_fields(path), **error_fields(error)} for path, error in self.failed[:MAX_NAMED_FILES]],
        }
        return json.dumps(row).encode("ascii") + b"\n"


def _time(seconds: float) -> str:
    return utc_text(dt.datetime.fromtimestamp(seconds, dt.UTC))
