"""Move files that have several names: the content goes once, and the other names become hard links to it.

The names of a file are removed at the source only once all of them that can be moved are at the destination.  So a run
that is ended at any instant is gone on with by the next one: as long as a name is to be made there, the source has all
of them, and what is there already is compared and linked to.
A name that cannot become a link there, because another file has it or it is on another file system, is moved like any
other file, and the names after it may become links to that one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeAlias

from attrs import define, evolve, field, frozen

from realize.by_value import ByValue
from realize.errors import RealizeError, Unanswered
from realize.mover.events import End, Event, Finished, How, Postponed
from realize.mover.interfaces import Arrived
from realize.mover.plan import Action
from realize.mover.small import Candidate
from realize.mover.work import SideError, StoreFailed, Work, whole
from realize.values import Entry, HardLink, HardLinked, Removal, Version

MAX_CALL_NAMES: Final = 256
"""Names that are linked, or removed, by one call at most."""

MAX_FRUITLESS_NAMES: Final = 2
"""Anchors in a row that nothing can be linked to, after which the other names of a file go with their own content.

Otherwise all of them would be asked for again after each: half a million for 1,000 names, where there are no links.
"""

_HOW_MADE: Final = {HardLinked.CREATED: How.CREATED, HardLinked.ALREADY_THERE: How.ALREADY_THERE}
_FREE: Final = frozenset({Action.SEND, Action.RESUME})
_STAYS: Final = frozenset({How.SKIPPED, How.GONE})


@frozen(eq=False, repr=False)
class NameThere(ByValue):
    """A name that is at the destination, with the content of this version of the file at the source."""

    entry: Entry
    finished: Finished
    version: Version


@define(eq=False, repr=False)
class LinkedFile:
    """One file with several names: those that are left to be moved, and what became of the others."""

    left: list[Candidate]
    there: list[NameThere] = field(factory=list)
    """Names that are at the destination, and still at the source."""
    anchor: NameThere | None = None
    """The name there that others become links to."""
    anchor_seen: bytes = b""
    """The identity that the anchor had there before, if it was there."""
    postponed: bool = False
    """Whether a name of it will be tried again: until then, no name is removed."""
    fruitless: int = 0
    """How many anchors in a row nothing could be linked to."""
    kept: bool = False
    """Whether no name is removed in this run: it was stopped, or the destination full, before all were there."""
    apart: set[bytes] = field(factory=set)
    """Paths that are names of another file by now: each goes with its own content."""

    def is_taken(self, candidate: Candidate) -> bool:
        """Whether a name cannot become a link to the anchor, since something else had it there, or it is apart."""
        existing = candidate.existing
        if existing.obstacle or candidate.entry.path in self.apart:
            return True
        return existing.final_size is not None and existing.identity != self.anchor_seen

    def take(self, *, taken: bool) -> list[Candidate]:
        """Take out of ``left``, and return, the names that are taken, or those that are not."""
        parted: dict[bool, list[Candidate]] = {True: [], False: []}
        for each in self.left:
            parted[self.is_taken(each)].append(each)
        self.left = parted[not taken]
        return parted[taken]


_Wanted: TypeAlias = tuple[LinkedFile, NameThere, Candidate]
"""A name that is to become a link to that one."""

MoveContents = Callable[[Work, Sequence[Candidate]], Awaitable[None]]
"""Moves the contents of candidates; events tell what became of each."""

TellRefused = Callable[[Work, Entry, SideError], object]
"""Is told of a name that could not be linked or removed."""


@define(eq=False, repr=False)
class LinkedBatch:
    """Moves some files with several names; ``work`` is that of the run."""

    work: Work
    files: Sequence[LinkedFile]
    move_contents: MoveContents
    refused: TellRefused
    _file_of: dict[bytes, LinkedFile] = field(factory=dict, init=False)
    _finished: dict[bytes, Finished] = field(factory=dict, init=False)
    _deferring: Work = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Note which names are whose."""
        self._file_of = {candidate.entry.path: file for file in self.files for candidate in file.left}
        self._deferring = evolve(self.work, emit=self._emit, removals={})

    async def run(self) -> None:
        """Move them; raises `StoreFailed` if a store refuses a whole call."""
        try:
            while firsts := self._firsts():
                await self._contents(firsts)
                if self.work.stop_flag.should_stop():
                    for file in self.files:
                        # Of a file whose content is not there, nothing more is begun.
                        file.kept = file.kept or file.anchor is None
                await self._link()
            await self._remove()
        finally:
            # What is there and was not removed is on both sides.
            for finished in self._finished.values():
                self.work.emit(finished)
            for file in self.files:
                for each in () if file.postponed else file.there:
                    self.work.emit(each.finished)

    def waiting(self) -> list[Entry]:
        """The names that are there already, of files of which another name will be tried again."""
        return [each.entry for file in self.files if file.postponed for each in file.there]

    def _emit(self, event: Event) -> None:
        """Keep what is said about names that have arrived until they are removed; pass on the rest."""
        if isinstance(event, Finished) and event.how not in _STAYS:
            self._finished[event.path] = evolve(event, removed=False)
            return
        if isinstance(event, Postponed):
            self._file_of[event.path].postponed = True
        self.work.emit(event)

    def _firsts(self) -> list[Candidate]:
        """The next names whose content is to be moved."""
        firsts: list[Candidate] = []
        for file in self.files:
            if file.fruitless >= MAX_FRUITLESS_NAMES:
                firsts += file.left
                file.left = []
                continue
            if file.anchor is not None:
                firsts += file.take(taken=True)
            elif file.left:
                firsts.append(file.left.pop(0))
        return firsts

    async def _contents(self, candidates: Sequence[Candidate]) -> None:
        await self.move_contents(self._deferring, candidates)
        removals = self._deferring.removals or {}
        for candidate in candidates:
            path = candidate.entry.path
            finished, version = self._finished.pop(path, None), removals.pop(path, None)
            if finished is None or version is None:
                continue
            file, name = self._file_of[path], NameThere(candidate.entry, finished, version)
            file.there.append(name)
            if file.anchor is None:
                already = finished.how is How.ALREADY_THERE and not finished.stored_as
                file.anchor = name
                file.anchor_seen = candidate.existing.identity if already else b""

    async def _link(self) -> None:
        """Make links of the names whose content is there; those that cannot be one go on without an anchor."""
        wanted: list[_Wanted] = []
        for file in self.files:
            if file.anchor is not None:
                wanted += [(file, file.anchor, each) for each in file.take(taken=False)]
        wanted = await self._still_one_file(wanted)
        fruitless = {id(file): file for file, _, _ in wanted}
        for first in range(0, len(wanted), MAX_CALL_NAMES):
            some = wanted[first : first + MAX_CALL_NAMES]
            links = [_link_to(anchor.finished, candidate.entry.path) for _, anchor, candidate in some]
            with whole(End.DESTINATION):
                answers = await self.work.destination.link_files(links)
            arrived: list[Finished] = []
            for (file, anchor, candidate), link, answer in zip(some, links, answers, strict=True):
                if isinstance(answer, RealizeError):
                    side_error = SideError(End.DESTINATION, answer)
                    file.kept = file.kept or side_error.no_room
                    self.refused(self._deferring, candidate.entry, side_error)
                elif answer is HardLinked.NOT_LINKED:
                    file.anchor, file.anchor_seen = None, b""
                    file.left.append(candidate)
                else:
                    fruitless.pop(id(file), None)
                    file.fruitless = 0
                    size, digest = anchor.finished.size, anchor.finished.digest
                    linked = Finished(link.path, size, 0, _HOW_MADE[answer], digest, removed=False, linked_to=link.to)
                    file.there.append(NameThere(candidate.entry, linked, anchor.version))
                    arrived.append(linked)
            await self.work.arrived([Arrived.of(each) for each in arrived])
        for file in fruitless.values():
            file.fruitless += 1

    async def _still_one_file(self, wanted: Sequence[_Wanted]) -> list[_Wanted]:
        """Return the names that are still names of the file whose content is at the destination.

        The listing may be hours old, and what was read under one name may have been another file already.
        """
        if not wanted:
            return []
        paths = {path: None for _, anchor, candidate in wanted for path in (anchor.entry.path, candidate.entry.path)}
        with whole(End.SOURCE):
            examined = await self.work.source.examine(list(paths), hard_links=True)
        found = dict(zip(paths, examined.entries, strict=True))
        still: list[_Wanted] = []
        for file, anchor, candidate in wanted:
            entry, version = found[anchor.entry.path], anchor.version
            if (
                isinstance(entry, RealizeError)
                or not entry.identity
                or (entry.size, entry.mtime_ns) != (version.size, version.mtime_ns)
            ):
                if file.anchor is anchor:
                    file.anchor, file.anchor_seen = None, b""
                file.left.append(candidate)
                continue
            other = found[candidate.entry.path]
            if isinstance(other, RealizeError) or other.identity != entry.identity:
                file.apart.add(candidate.entry.path)
                file.left.append(candidate)
            else:
                still.append((file, anchor, candidate))
        return still

    async def _remove(self) -> None:
        """Remove the names of each file of which nothing more will be moved."""
        if not self.work.options.remove:
            return
        removals: list[tuple[LinkedFile, NameThere]] = []
        for file in self.files:
            if not file.postponed and not file.kept:
                removals += ((file, each) for each in file.there)
                # The first come last, where it takes no time to take them off.
                file.there.reverse()
        for first in range(0, len(removals), MAX_CALL_NAMES):
            some = removals[first : first + MAX_CALL_NAMES]
            try:
                refusals = await self.work.remove([Removal(each.entry.path, each.version) for _, each in some])
            except StoreFailed as side_error:
                if isinstance(side_error.error, Unanswered):
                    for file, each in some:
                        file.there.pop()
                        self.work.emit(self.work.removal_unknown(each.finished))
                raise
            gone: list[Finished] = []
            for (file, each), refused in zip(some, refusals, strict=True):
                file.there.pop()
                if refused is None:
                    gone.append(each.finished)
                else:
                    self.refused(self.work, each.entry, SideError(End.SOURCE, refused))
            self.work.removed([Arrived.of(each) for each in gone])
            for finished in gone:
                self.work.emit(evolve(finished, removed=True))


def _link_to(anchor: Finished, path: bytes) -> HardLink:
    return HardLink(path, anchor.stored_as or anchor.path, anchor.digest)


def linked_files(decided: Mapping[bytes, Candidate], files: Sequence[Sequence[Entry]]) -> list[LinkedFile]:
    """Return the files with those of their names that are to be moved."""
    found = ([decided[entry.path] for entry in file if entry.path in decided] for file in files)
    return [LinkedFile(sorted(left, key=_is_absent)) for left in found if left]


def planned_links(actions: Mapping[bytes, Action], files: Sequence[Sequence[Entry]]) -> dict[bytes, bytes]:
    """Return which names would become links, and to which name of their file, as far as ``actions`` tell."""
    links: dict[bytes, bytes] = {}
    for file in files:
        moved = [entry.path for entry in file if actions.get(entry.path, Action.SKIP) is not Action.SKIP]
        moved.sort(key=lambda path: actions[path] is not Action.COMPARE)
        links |= {path: moved[0] for path in moved[1:] if actions[path] in _FREE}
    return links


def _is_absent(candidate: Candidate) -> bool:
    """Whether a name is surely not there yet: what is there, from an earlier run, is what the others are linked to."""
    return candidate.existing.final_size != candidate.entry.size
