"""Ask a run to end early but in order: files under way are finished, and no new ones are started."""

from __future__ import annotations


class StopFlag:
    """Set once, from outside the run; ``took_effect`` tells afterwards whether it kept anything from being started."""

    def __init__(self) -> None:
        self.requested = False
        self.took_effect = False
        self.why = "the time limit was reached"

    def reached(self, why: str) -> None:
        """Say that something was kept from being started, for another reason than time, and start nothing new."""
        if not self.requested:
            self.why = why
        self.requested = self.took_effect = True

    def request(self) -> None:
        """Start nothing new from now on."""
        self.requested = True

    def should_stop(self) -> bool:
        """Whether not to start something; ask only when about to start it, for True sets ``took_effect``."""
        self.took_effect = self.took_effect or self.requested
        return self.requested
