"""What interrupted transfers leave in a directory, for tests that need some."""

from __future__ import annotations

import os
from pathlib import Path

from realize.fs.names import partial_name
from realize.store.local.partial_marks import RECEIVING


def partial_at(directory: Path | str | bytes, name: str | bytes) -> Path:
    """Where the partial of that name is."""
    return Path(os.fsdecode(directory), os.fsdecode(partial_name(os.fsencode(name))))


def leave_partial(directory: Path | str | bytes, name: str | bytes, content: bytes) -> Path:
    """Put a partial there, as a writer that died would; where it is."""
    place = partial_at(directory, name)
    place.write_bytes(content)
    place.chmod(RECEIVING)
    return place
