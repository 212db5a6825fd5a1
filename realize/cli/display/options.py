"""What the user wants to see of a run."""

from __future__ import annotations

from attrs import frozen


@frozen
class DisplayOptions:
    """What the user wants to see; ``progress`` is None where the terminal decides."""

    progress: bool | None = None
    quiet: bool = False
    json: bool = False
    verbose: bool = False
    remove: bool = True
    dry_run: bool = False
