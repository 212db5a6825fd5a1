"""What the page does not show unless the operator allows it: names of files and directories.

All that the page gets of moves and transfers goes through here, so that the rest of it cannot show more.
The text of an error may name a file, so only its kind is shown, in our own words.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from attrs import evolve

from realize.errors import UsageError
from realize.locations import RemoteLocation, parse_location
from realize.moves.status import MoveStatus

HERE: Final = "this machine"
"""What stands for a directory of this machine."""

KINDS_OF_ERRORS: Final = MappingProxyType(
    {
        "ACL_NOT_KEPT": "an access control list cannot be preserved",
        "BAD_NAME": "the other end cannot use a name",
        "BUSY": "the other end is busy",
        "CHANGED": "a file changed while it was read",
        "CONFIG": "the configuration is wrong",
        "CONFLICT": "the destination has another file of the same name",
        "CONNECTION": "the peer cannot be reached, or the connection was lost",
        "DEADLINE": "the time limit was reached",
        "DENIED": "a right is missing",
        "INTERNAL": "an unexpected error; the log has more",
        "INTERRUPTED": "the run was interrupted",
        "LINK_REFUSED": "a symlink is not allowed there",
        "NOT_FOUND": "a file or a directory is not there",
        "NOT_KEPT": "attributes of a file cannot be preserved",
        "NOT_REGULAR": "something that is no file has the name of a file",
        "NO_SPACE": "no space left",
        "OWNER_NOT_KEPT": "the owner of a file cannot be preserved",
        "PROTOCOL": "the peer violates the protocol",
        "SAME_FILE": "source and destination are the same",
        "SILENCE": "the peer gives no sign of life",
        "STORAGE": "a disk failed to read or write",
        "UNAVAILABLE": "the peer can be reached, but its directory is not there",
        "UNANSWERED": "no answer came from the peer",
        "UNSETTLED": "a file changed before its turn came",
        "USAGE": "the request makes no sense",
        "VERIFY": "the copy differs from the original",
        "VERSION": "the peer speaks another version of the protocol",
        "WRONG_PEER": "the peer has another key than expected",
        "WRONG_SIZE": "a file has more or less content than its size says",
        "XATTR_NOT_KEPT": "extended attributes of a file cannot be preserved",
    }
)
"""The kinds of errors by their codes in the protocol, in words that name no file."""


def without_names(move: MoveStatus) -> MoveStatus:
    """The same move without names of files and directories; of locations at peers, the peers stay."""
    running = move.running
    return evolve(
        move,
        sources=tuple(dict.fromkeys(map(_whose, move.sources))),
        destination=_whose(move.destination),
        watching={str(number): way for number, way in enumerate(move.watching.values())},
        running=running and evolve(running, in_flight=[evolve(file, path="") for file in running.in_flight]),
        last_run=move.last_run and evolve(move.last_run, error=""),
        error=kind_of(move.error, move.error_code),
        file_error=kind_of(move.file_error, move.file_error_code),
    )


def kind_of(text: str, code: str) -> str:
    """What to say of an error in place of its text; empty if there is none."""
    if not text and not code:
        return ""
    return KINDS_OF_ERRORS.get(code.upper(), "an error; the log has more")


def _whose(location: str) -> str:
    """The peer of a location, or this machine."""
    try:
        place = parse_location(location, {})
    except UsageError:  # one that was checked when it was configured, so only our own words can be none
        return HERE
    return place.host if isinstance(place, RemoteLocation) else HERE
