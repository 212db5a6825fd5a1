"""A way to let a run end by itself: what is under way goes on, nothing new is started."""

from __future__ import annotations

from attrs import define


@define
class Brake:
    """Pulled once, from outside; ``held_back`` tells afterwards whether anything was not started because of it."""

    pulled: bool = False
    held_back: bool = False

    def pull(self) -> None:
        """From now on start nothing new."""
        self.pulled = True

    def holds(self) -> bool:
        """Whether something that is about to start must not; it then counts as held back."""
        self.held_back = self.held_back or self.pulled
        return self.pulled
