"""The limits that the connections of a run keep to, besides those that are asked for by the run itself."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from realize.by_value import ByValue
from realize.keys import PublicKey
from realize.throttle.tree import ThrottleTree


@frozen(eq=False, repr=False)
class LimitTree(ByValue):
    """The limits of a process, with what the connections of its runs are called there.

    ``peer_of`` answers the name of the peer that has a key, and ``new_name`` one for a connection that no other has.
    """

    tree: ThrottleTree
    peer_of: Callable[[PublicKey], str]
    new_name: Callable[[], str]
