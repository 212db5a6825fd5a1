"""Files of a listing as records, which sort and are kept outside memory; each has the directories that it is in."""

from __future__ import annotations

import struct
from typing import Final

from realize.mover.ancestors import ancestors
from realize.values import Attributes, Entry, Kind

_FILE: Final = struct.Struct("!Qq")
_DIRECTORY: Final = struct.Struct("!qH")


class Records:
    """Makes the records of the files of one listing, in which a directory comes before what is in it."""

    def __init__(self) -> None:
        self._above: list[tuple[bytes, Attributes]] = []

    def listed(self, entry: Entry) -> None:
        """Take note of the next entry, whatever it is."""
        while self._above and not entry.path.startswith(self._above[-1][0] + b"/"):
            self._above.pop()
        if entry.kind is Kind.DIRECTORY:
            self._above.append((entry.path, Attributes(entry.mtime_ns, entry.mode)))

    def of(self, entry: Entry, key: bytes) -> bytes:
        """Return the record of a file, which was just listed; ``key`` is what it is sorted by."""
        above = b"".join(_DIRECTORY.pack(each.mtime_ns, each.mode) for _, each in self._above)
        return b"%b%b\0%b%b" % (key, entry.path, _FILE.pack(entry.size, entry.mtime_ns), above)


def entries_of(record: bytes, key_bytes: int) -> list[Entry]:
    """Return the file of a record with a key of that length, behind the directories that it is in, outermost first."""
    path, rest = record[key_bytes:].split(b"\0", 1)
    size, mtime_ns = _FILE.unpack_from(rest)
    # Directories that no listing has told of, such as those above a name, are missing at the outer end.
    known = list(_DIRECTORY.iter_unpack(rest[_FILE.size :]))
    above = ancestors(path)
    entries = [
        Entry(directory, Kind.DIRECTORY, mtime_ns=directory_ns, mode=mode)
        for directory, (directory_ns, mode) in zip(above[len(above) - len(known) :], known, strict=True)
    ]
    return [*entries, Entry(path, Kind.FILE, size, mtime_ns)]
