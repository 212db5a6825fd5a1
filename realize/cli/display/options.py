"""The options that say what a run displays."""

from __future__ import annotations

from attrs import frozen

from realize.by_value import ByValue


@frozen(eq=False, repr=False)
class DisplayOptions(ByValue):
    """What the user wants to see; ``progress`` is None if it depends on whether stderr is a terminal."""

    progress: bool | None = None
    quiet: bool = False
    json: bool = False
    verbose: bool = False
    remove: bool = True
    dry_run: bool = False
