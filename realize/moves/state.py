"""What a standing move remembers over a restart of the daemon, and its JSON form; pure.

Losing it loses no file: files are found again by a walk, and what was paused runs again.
The form is strict and bounded: what has anything else in it, or is of another version, is refused as a whole.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from typing import Any, Final

from attrs import evolve, field, frozen
from cattrs import Converter

from realize.by_value import ByValue
from realize.moves.status import RunResult

STATE_FORMAT: Final = "realize move state 1"
"""What a file says it is; another number for a change that older programs would misread."""

MAX_FILE_FAILURES: Final = 1_000
"""Files of a move whose failures are remembered."""

MAX_STATE_BYTES: Final = 4 << 20
"""The largest state that is read."""

MAX_ERROR_CHARS: Final = 1_000
"""Characters of a sentence that are kept."""

_MAX_NUMBER_BITS: Final = 64

_LAST_EPOCH_S: Final = 253_402_300_799
"""The last second of the year 9999: no calendar has a later one."""


def _shortened(text: str) -> str:
    return text[:MAX_ERROR_CHARS]


@frozen(kw_only=True, eq=False, repr=False)
class FileFailure(ByValue):
    """A file that could not be moved.

    ``path`` is below ``source``; it has failed ``since`` then (epoch seconds), and was tried so often.
    ``code`` is the wire code of the last error, ``error`` its sentence.
    """

    source: str
    path: bytes
    since: float
    attempts: int = 1
    code: str = ""
    error: str = field(default="", converter=_shortened)


@frozen(kw_only=True, eq=False, repr=False)
class Unfinished(ByValue):
    """A time by the clock that was taken, but not to its end: a run goes on with it ``until`` then (epoch seconds).

    None: whenever there can be a run again.
    """

    until: float | None = None


def _first(failures: Sequence[FileFailure]) -> Sequence[FileFailure]:
    return tuple(failures[:MAX_FILE_FAILURES])


@frozen(kw_only=True, eq=False, repr=False)
class MoveState(ByValue):
    """What one move remembers; times are seconds since the epoch by the wall clock.

    ``failing_since``, ``error``, ``error_code`` and ``attempts`` tell of a move that fails as a whole, ``failures`` of
    single files: the first `MAX_FILE_FAILURES` of those given.
    ``last_due`` is the last time by the clock at which a run was due and begun, for catching up what was missed;
    ``unfinished`` says whether there is something left of that.
    """

    paused: bool = False
    last_run: RunResult | None = None
    last_success: float | None = None
    failing_since: float | None = None
    error: str = field(default="", converter=_shortened)
    error_code: str = field(default="", converter=_shortened)
    attempts: int = 0
    last_due: float | None = None
    unfinished: Unfinished | None = None
    failures: Sequence[FileFailure] = field(default=(), converter=_first)

    def to_json(self) -> bytes:
        """The state as a file has it: at most `MAX_STATE_BYTES`, with fewer failures if it must be so."""
        state: MoveState = self
        while len(content := _content(state)) > MAX_STATE_BYTES:
            state = evolve(state, failures=state.failures[: len(state.failures) // 2])
        return content

    @classmethod
    def from_json(cls, content: bytes) -> MoveState:
        """The state that a file has.

        Raises `ValueError`, whose sentence goes on after the name of the file, if it has none that this version knows.
        """
        if len(content) > MAX_STATE_BYTES:
            raise ValueError(f"is larger than {MAX_STATE_BYTES >> 20} MiB")
        try:
            row = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise ValueError("is not JSON") from error
        found = row.get("format") if isinstance(row, dict) else None
        if found != STATE_FORMAT:
            raise ValueError(f"is not of the format {STATE_FORMAT!r}")
        try:
            return _STATE_CONVERTER.structure({key: value for key, value in row.items() if key != "format"}, cls)
        except Exception as error:
            raise ValueError("has values that are not allowed") from error


def _content(state: MoveState) -> bytes:
    row = {"format": STATE_FORMAT, **_STATE_CONVERTER.unstructure(state)}
    return json.dumps(row, indent=1).encode("ascii") + b"\n"


def _exactly(kind: type) -> Callable[[Any, Any], Any]:
    """What takes values of this type alone: True is no number, and "1" neither."""

    def take(value: Any, _: Any) -> Any:
        if type(value) is not kind or (
            isinstance(value, int) and (value < 0 or value.bit_length() >= _MAX_NUMBER_BITS)
        ):
            raise ValueError(f"expected {kind.__name__}")
        return value

    return take


def _number(value: Any, _: Any) -> float:
    if type(value) not in {int, float}:
        raise ValueError("expected a number")
    number = float(value)
    if not 0 <= number <= _LAST_EPOCH_S:
        raise ValueError("expected a number")
    return number


def _path(value: Any, _: Any) -> bytes:
    return base64.b64decode(value.encode("ascii"), validate=True)


def _strict_converter() -> Converter:
    converter = Converter(forbid_extra_keys=True, detailed_validation=False)
    for kind in (bool, int, str):
        converter.register_structure_hook(kind, _exactly(kind))
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook(bytes, _path)
    converter.register_unstructure_hook(bytes, lambda path: base64.b64encode(path).decode())
    return converter


_STATE_CONVERTER: Final = _strict_converter()
