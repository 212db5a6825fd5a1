"""`WatchedDirectories`: which watch belongs to which directory of a source, while these come, go and are renamed; pure.

Directories form a tree by name, so that one that is renamed takes everything below it along.
A watch is known by the number that the kernel gave it, which it never gives again.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import define, field

from realize.fs import names


@define(eq=False, repr=False)
class _Node:
    """A directory; ``watch`` is None if it has none, and ``seen`` is the number of the walk that saw it last."""

    name: bytes
    parent: _Node | None
    watch: int | None = None
    seen: int = 0
    children: dict[bytes, _Node] = field(factory=dict)

    @property
    def components(self) -> tuple[bytes, ...]:
        """From the top of the source."""
        return tuple(reversed([node.name for node in self.above() if node.parent is not None]))

    def above(self) -> Iterator[_Node]:
        """The directories that it is in, and itself, the innermost first."""
        node: _Node | None = self
        while node is not None:
            yield node
            node = node.parent

    def all(self) -> Iterator[_Node]:
        """It, and those below."""
        waiting = [self]
        while waiting:
            node = waiting.pop()
            yield node
            waiting += node.children.values()


class WatchedDirectories:
    """The directories of one source that are watched; the path of its top is empty."""

    def __init__(self) -> None:
        self._top = _Node(b"", None)
        self._nodes: dict[int, _Node] = {}
        self._moving: dict[int, _Node] = {}
        """Directories that were moved away, by the number that the event of their arrival will have."""

    def __len__(self) -> int:
        """How many watches there are."""
        return len(self._nodes)

    def __contains__(self, watch: int) -> bool:
        """Whether a watch is one of these, of a directory that is in the source."""
        return self._placed(watch) is not None

    def is_top(self, watch: int) -> bool:
        """Whether it is the watch of the source itself."""
        return self._top.watch == watch

    def path(self, watch: int, name: bytes = b"") -> bytes | None:
        """Return the path of a directory, or of a name in it; None if it is not in the source any more."""
        node = self._placed(watch)
        if node is None:
            return None
        return names.join((*node.components, name) if name else node.components)

    def has(self, watch: int, name: bytes) -> bool:
        """Whether a name in a directory is that of a directory that is watched."""
        node = self._nodes.get(watch)
        child = None if node is None else node.children.get(name)
        return child is not None and child.watch is not None

    def put(self, path: bytes, watch: int, walk: int) -> list[int]:
        """A directory has this watch; return the watches that are of no more use, of one that had the name before.

        If it was known by another path, it is now here, with what is below it.
        """
        node = self._at(path)
        former = self._nodes.get(watch)
        dropped: list[int] = []
        if former is not node:
            if former is not None and former in node.above():
                dropped += self._forget(former)
            if node.watch is not None:
                dropped += self._forget(node)
            node, former = self._at(path), self._nodes.get(watch)
            if former is not None:
                dropped += self._take_over(node, former)
            node.watch = watch
            self._nodes[watch] = node
        node.seen = walk
        return [each for each in dropped if each != watch]

    def _take_over(self, node: _Node, former: _Node) -> list[int]:
        """Give a directory what is below another one, which it was before; returns the watches that find no place."""
        self._cut(former)
        former.watch = None
        children, former.children = former.children, {}
        dropped: list[int] = []
        for child in children.values():
            if child.name in node.children:
                dropped += self._forget(child)
            else:
                child.parent = node
                node.children[child.name] = child
        return dropped

    def leave(self, watch: int, name: bytes, arrival: int) -> bool:
        """A name was moved away from a directory; return whether it was that of one of these."""
        node = self._nodes.get(watch)
        child = None if node is None else node.children.get(name)
        if child is None:
            return False
        self._cut(child)
        self._moving[arrival] = child
        return True

    def arrive(self, watch: int, name: bytes, arrival: int) -> list[int]:
        """A directory was moved to a name; if it left another one before, its watches go along.

        Returns the watches that are of no more use, of one that had the name before.
        """
        node = self._nodes.get(watch)
        if node is None:
            return []
        replaced = node.children.get(name)
        dropped = [] if replaced is None else self._forget(replaced)
        child = self._moving.pop(arrival, None)
        if child is not None:
            child.name, child.parent = name, node
            node.children[name] = child
        return dropped

    def left(self) -> list[int]:
        """Give up what was moved away and has not arrived; returns its watches."""
        moving, self._moving = self._moving, {}
        return [watch for node in moving.values() for watch in self._forget(node)]

    def drop(self, watch: int, name: bytes = b"") -> list[int]:
        """A directory, or the one of that name in it, is gone; returns the watches of it and of all below it."""
        node = self._nodes.get(watch)
        if node is not None and name:
            node = node.children.get(name)
        return [] if node is None else self._forget(node)

    def unseen(self, walk: int) -> list[int]:
        """Forget the directories that no walk has seen since the one of that number; returns their watches."""
        stale = [node for node in self._top.all() if node.watch is not None and node.seen < walk]
        return [watch for node in stale for watch in self._forget(node)]

    def clear(self) -> list[int]:
        """Forget all of them; returns their watches."""
        watches = list(self._nodes)
        self._top = _Node(b"", None)
        self._nodes.clear()
        self._moving.clear()
        return watches

    def _placed(self, watch: int) -> _Node | None:
        """Return the directory of a watch, unless it was moved away and has not arrived."""
        node = self._nodes.get(watch)
        if node is None or not self._moving or any(each is self._top for each in node.above()):
            return node
        return None

    def _at(self, path: bytes) -> _Node:
        node = self._top
        for name in names.judge(path) if path else ():
            child = node.children.get(name)
            if child is None:
                child = node.children[name] = _Node(name, node)
            node = child
        return node

    def _cut(self, node: _Node) -> None:
        parent = node.parent
        if parent is not None and parent.children.get(node.name) is node:
            del parent.children[node.name]
        if node is not self._top:
            node.parent = None

    def _forget(self, node: _Node) -> list[int]:
        self._cut(node)
        watches = [each.watch for each in node.all() if each.watch is not None]
        for watch in watches:
            del self._nodes[watch]
        for each in node.all():
            each.watch = None
        if node is self._top:
            node.children.clear()
        return watches
