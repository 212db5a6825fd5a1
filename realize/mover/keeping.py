"""What is carried over beside content, permission bits and times: read with a file, sent with it, never lost unsaid.

Loaded only in a run that asks for more, or for less, than permission bits and times.
A file of which something cannot be kept stays at its source, since its removal would destroy the only copy of that.
With ``best_effort`` it is moved all the same: the first of each kind that cannot be kept is told, and from then on the
run does not insist on that kind.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from operator import attrgetter
from typing import Final, TypeVar

from attrs import define, evolve, field
from twisted.internet.defer import Deferred

from realize.errors import Busy, NotFound, NotKept, RealizeError, SourceChanged, UsageError
from realize.extras import Extras, FoundExtras, WantedExtras
from realize.mover.events import End, Failed, NotPreserved, Observer
from realize.mover.work import Side, TransferOptions, Work, whole
from realize.store.interfaces import IStore
from realize.units import display_name
from realize.values import (
    EXTRAS,
    OWNERS,
    USUALLY_PRESERVED,
    Attributes,
    Directory,
    Fetched,
    Preserve,
    SmallFile,
    Version,
)

_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")

MAX_BATCH_EXTRAS_BYTES: Final = 1 << 20
"""What the attributes of a batch take in memory at most; files with more of them go one by one."""

_ATTEMPTS: Final = 1 + len(EXTRAS)
"""How often something is asked for at most, insisting on less each time."""


@define(eq=False, repr=False)
class Keeping:
    """What one run carries over.

    ``wanted`` are the kinds that have to be read; ``leaves`` what does not go although it usually does.
    """

    wanted: frozenset[Preserve]
    leaves: frozenset[Preserve]
    numeric: bool
    best_effort: bool
    emit: Observer
    lenient: frozenset[Preserve] = field(default=frozenset(), init=False)
    """Kinds that the run does not insist on any more."""

    def check(self, sides: Sequence[tuple[End, Side, frozenset[Preserve]]]) -> None:
        """Raise `UsageError`, or give way, for what a store does not know, or take; each has its kinds with it."""
        for end, side, knows in sides:
            missing = self.wanted - knows
            if self.leaves and EXTRAS.isdisjoint(knows) and self._is_old(side.store):
                raise UsageError(
                    f"{end.value} {side.name}: the peer runs an older release, which carries over both mode and "
                    "times, or neither; upgrade it, or ask for both"
                )
            for kind in sorted(missing, key=lambda each: each.value):
                why = (
                    "the peer runs an older release"
                    if self._is_old(side.store)
                    else "the daemon there does not accept it (accept in its table of dirs)"
                )
                if not self.best_effort:
                    raise UsageError(f"{end.value} {side.name}: cannot keep {kind.value}: {why}; nothing was moved")
                if kind is Preserve.ACL and end is End.DESTINATION and not self._is_old(side.store):
                    # It goes along all the same: whoever cannot set a list gives fewer permission bits instead of it.
                    self.lenient |= {kind}
                else:
                    self.wanted -= {kind}
                self.emit(NotPreserved(b"", kind, f"{end.value} {side.name}: {why}"))

    @staticmethod
    def _is_old(store: IStore) -> bool:
        return EXTRAS.isdisjoint(store.tells)

    def gives_way(self, path: bytes, error: BaseException) -> bool:
        """Whether to try once more, without insisting on what an error says cannot be kept; tells that."""
        if not self.best_effort or not isinstance(error, NotKept):
            return False
        kinds = frozenset({Preserve(error.kind)} if error.kind else self.wanted) - self.lenient
        self.lenient |= kinds
        for kind in sorted(kinds, key=lambda each: each.value):
            self.emit(NotPreserved(path, kind, str(error)))
        return True

    def of(self, attributes: Attributes, extras: Extras | None = None) -> Attributes:
        """Attributes as they are to be set now, with ``extras`` if these were not with them already."""
        current = self.current(extras or attributes.extras or Extras())
        if current is attributes.extras:
            return attributes
        return Attributes(attributes.mtime_ns, attributes.mode, current)

    def current(self, extras: Extras) -> Extras:
        """The same, insisting on what the run insists on by now; nothing that a source tells without being asked."""
        wanted = self.wanted
        if (
            extras.lenient == self.lenient
            and extras.leaves == self.leaves
            and extras.numeric == self.numeric
            and extras.kinds <= wanted
            and (extras.default_acl is None or Preserve.ACL in wanted)
        ):
            return extras
        return Extras(
            extras.owner if Preserve.OWNER in wanted else None,
            extras.acl if Preserve.ACL in wanted else None,
            extras.default_acl if Preserve.ACL in wanted else None,
            extras.xattrs if Preserve.XATTR in wanted else None,
            numeric=self.numeric,
            lenient=self.lenient,
            leaves=self.leaves,
        )

    def asks(self) -> WantedExtras | None:
        """What to ask of a source with each file; None if that is nothing."""
        return WantedExtras(self.wanted, self.numeric, self.lenient, self.leaves) if self.wanted else None

    def asks_of_links(self) -> WantedExtras | None:
        """The same for symlinks, which have an owner alone."""
        kinds = self.wanted & {Preserve.OWNER}
        return WantedExtras(kinds, self.numeric, self.lenient, self.leaves) if kinds else None

    async def read(self, store: IStore, paths: Sequence[bytes]) -> list[FoundExtras | RealizeError]:
        """Read what is carried over of these; raises `SideError` if the source refuses the whole call."""

        async def ask(some: Sequence[bytes]) -> list[FoundExtras | RealizeError]:
            found: list[FoundExtras | RealizeError] = []
            with whole(End.SOURCE):
                while len(found) < len(some):
                    rest = some[len(found) :]
                    found += await store.read_extras(rest, self.wanted, numeric=self.numeric, lenient=self.lenient)
            return found

        return await self.insisting(paths, lambda path: path, ask)

    async def of_versions(
        self, store: IStore, paths: Sequence[bytes], versions: Sequence[Version]
    ) -> list[Extras | RealizeError]:
        """Read what is carried over of files whose content was read: of the same versions, or why it is not."""
        found = await self.read(store, paths) if paths else []
        return list(map(_matching, paths, versions, found))

    async def complete(
        self, store: IStore, answers: Sequence[Fetched | RealizeError]
    ) -> Sequence[Fetched | RealizeError]:
        """Add what else is carried over to small files that were read without it, or say why that cannot be."""
        if not self.wanted:
            return answers
        fetched = [each for each in answers if not isinstance(each, RealizeError) and _extras_of(each) is None]
        paths, versions = [each.file.path for each in fetched], [each.version for each in fetched]
        found = iter(await self.of_versions(store, paths, versions))
        room = MAX_BATCH_EXTRAS_BYTES
        completed: list[Fetched | RealizeError] = []
        for each in answers:
            if isinstance(each, RealizeError):
                completed.append(each)
                continue
            come = _extras_of(each)
            extras = next(found) if come is None else come
            if isinstance(extras, RealizeError):
                completed.append(extras)
                continue
            room -= extras.size
            if room < 0:
                completed.append(Busy(f"{display_name(each.file.path)}: has too many attributes for a batch"))
                continue
            completed.append(each if come is not None else _with(each, extras))
        return completed

    async def insisting(
        self,
        items: Sequence[_Item],
        path_of: Callable[[_Item], bytes],
        ask: Callable[[Sequence[_Item]], Awaitable[Sequence[_Answer]]],
    ) -> list[_Answer]:
        """Ask about all items, and again about those that give way, which ``ask`` makes up anew."""
        answers = list(await ask(items))
        for _ in range(_ATTEMPTS - 1):
            again = [
                number
                for number, answer in enumerate(answers)
                if isinstance(answer, NotKept) and self.gives_way(path_of(items[number]), answer)
            ]
            if not again:
                break
            for number, answer in zip(again, await ask([items[number] for number in again]), strict=True):
                answers[number] = answer
        return answers

    async def directories(self, store: IStore, directories: Sequence[Directory]) -> list[Directory | RealizeError]:
        """Add what else is carried over to directories of the source; its top has only permission bits and times."""
        below = [each for each in directories if each.path]
        if not self.wanted:
            return [evolve(each, extras=self.current(Extras())) for each in directories]
        found = iter(await self.read(store, [each.path for each in below]) if below else ())
        completed: list[Directory | RealizeError] = []
        for each in directories:
            answer = next(found) if each.path else None
            if isinstance(answer, RealizeError):
                completed.append(answer)
            else:
                extras = Extras() if answer is None else answer.extras
                completed.append(evolve(each, extras=self.current(extras)))
        return completed

    async def new_directories(self, store: IStore, wanted: Sequence[Directory]) -> list[Directory]:
        """The same for copies to be made; those of which that cannot be read are for their owner alone.

        They are read again when all of their files are there, and what is wrong is told then.
        """
        completed = await self.directories(store, wanted)
        return [
            each if isinstance(each, Directory) else evolve(plain, mode=plain.mode & OWNERS)
            for plain, each in zip(wanted, completed, strict=True)
        ]

    async def set_directories(self, work: Work, meant: Sequence[Directory]) -> bool:
        """Set copies of directories with all that is carried over; returns whether all of it could be kept.

        A directory of which that cannot be has failed, and stays.
        """

        def ask(some: Sequence[Directory]) -> Deferred[list[bool | RealizeError]]:
            current = [each if each.extras is None else evolve(each, extras=self.current(each.extras)) for each in some]
            return work.destination.set_directories(current)

        kept = True
        completed = await self.directories(work.source, meant)
        readable = [each for each in completed if isinstance(each, Directory)]
        for plain, each in zip(meant, completed, strict=True):
            if not isinstance(each, (Directory, NotFound)):
                kept = False
                work.emit(Failed(plain.path, End.SOURCE, each, found=False))
        with whole(End.DESTINATION):
            answers = await self.insisting(readable, attrgetter("path"), ask)
        for each, answer in zip(readable, answers, strict=True):
            if isinstance(answer, NotKept):
                kept = False
                work.emit(Failed(each.path, End.DESTINATION, answer, found=False))
        return kept


def _extras_of(fetched: Fetched) -> Extras | None:
    attributes = fetched.file.attributes
    return None if attributes is None else attributes.extras


def _with(fetched: Fetched, extras: Extras) -> Fetched:
    file, attributes = fetched.file, fetched.file.attributes
    if attributes is None:
        return fetched
    given = Attributes(attributes.mtime_ns, attributes.mode, extras)
    return Fetched(SmallFile(file.path, file.content, file.digest, given), fetched.version)


def _matching(path: bytes, version: Version, found: FoundExtras | RealizeError) -> Extras | RealizeError:
    """What was found, if it is of the same version of a file as its content."""
    if isinstance(found, RealizeError):
        return found
    if found.version != version:
        return SourceChanged(f"{display_name(path)}: changed while it was read")
    return found.extras


def keeping_of(options: TransferOptions, emit: Observer) -> Keeping | None:
    """What a run with these options needs; None if it carries over what usually is, or nothing."""
    wanted, leaves = options.preserve & EXTRAS, USUALLY_PRESERVED - options.preserve
    if not options.preserve or not (wanted or leaves):
        return None
    return Keeping(wanted, leaves, options.numeric_ids, options.best_effort, emit)
