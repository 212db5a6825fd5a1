"""What a peer that was let in can do to a real directory: random commands, and mutated boxes, as each of the rights.

After each burst the directory, what is beside it, and what was logged must be what the right allows.
The suite tries a sample; `make soak` tries 20,000 commands with each right, and 200,000 boxes.
"""

from __future__ import annotations

import os
import random
import shutil
import stat
from collections import Counter
from functools import partial

import pytest
from blake3 import blake3
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock
from twisted.protocols.amp import parseString

from realize.concurrency.turns import Turns
from realize.config import Right
from realize.extras import Extras, Owner
from realize.fs.names import is_partial
from realize.store import deltas
from realize.store.local.footprint import Footprint
from realize.store.local.store import LocalStore, root_identity
from realize.store.server.responders import DirectoryResponders
from realize.store.server.rights import PUT
from realize.units import display_name
from realize.values import (
    BLOCK_BYTES,
    Attributes,
    Directory,
    Expected,
    HardLink,
    OnConflict,
    Removal,
    Seen,
    Symlink,
    Use,
    Vacant,
    Version,
)
from realize.wire import commands
from realize.wire.boxes import data_head, data_tail, encode
from realize.wire.packing import SmallHead
from tests.loopback import Raw

PLANTED = {b"f": b"12345", b"d/g": b"x" * 5_000, b"d/large": bytes(range(256)) * 5_000, b"d/e/h": b""}
NAMES = [*PLANTED, b"new", b"d/new", b"n/m/new", b"empty", b"empty/deep", b"d", b"d/e", b"made", b"link/secret"]
HOSTILE = [b"", b"..", b"../outside/secret", b"/etc/passwd", b"a/./b", b"a\0b", b"x" * 300, b"d/../../outside/secret"]
BURST = 250
"""Commands of one connection, after which all is looked at."""

RIGHTS = [
    frozenset(),
    *(frozenset({right}) for right in Right),
    frozenset({Right.READ, Right.REMOVE}),
    frozenset(Right),
]


def named(rights):
    """For the names of tests."""
    return "+".join(sorted(right.value for right in rights)) or "nothing"


def scan(folder):
    """All below a folder: what it is, its mode and, but for directories, its time and content."""
    found = {}
    for parent, names, files in os.walk(os.fsencode(folder)):
        for name in names + files:
            path = os.path.join(parent, name)
            status = os.lstat(path)
            what = (stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode))
            if stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    what += (status.st_mtime_ns, blake3(file.read()).digest())
            found[os.path.relpath(path, os.fsencode(folder))] = what
    return found


def finals(found):
    """Only the files that are no partials of ours."""
    return {
        path: what for path, what in found.items() if stat.S_ISREG(what[0]) and not is_partial(os.path.basename(path))
    }


class Burst(Raw):
    """A connection of one peer to a directory on the disk, and what is true before and after it."""

    def __init__(self, folder, rights, seed):
        self.random = random.Random(seed)
        self.root, self.beside, self.rights = folder / "root", folder / "outside", rights
        self._plant()
        self.before, self.outside = scan(self.root), scan(self.beside)
        self.asked, self.content_came = 0, False
        self.reading, self.writing = [], []
        self.said = Counter()
        """How often each command ended how."""
        self.mutates = 0.0
        """The part of what is sent that is mutated."""
        self.mutated = 0
        self.responders = None
        trace, turns = Footprint(), Turns(2, 2)

        def welcome(protocol, _):
            self.responders = DirectoryResponders(
                protocol,
                rights={"inbox": rights},
                make_store=lambda _, base, origin, _backup_dir: LocalStore(
                    str(self.root),
                    base,
                    run_in_thread=maybeDeferred,
                    root_identity=root_identity(str(self.root)),
                    footprint=trace,
                    changes_all=Right.WRITE in rights,
                    prunes_all=Right.PRUNE in rights,
                    origin=origin,
                ),
                key=b"key of the peer",
                turns_of=lambda _: partial(turns.run, "peer"),
                log=self.log,
            )
            protocol.serve(self.responders)
            return "evil"

        super().__init__(Clock(), welcome=welcome)
        self.ask(commands.Hello, major=commands.MAJOR, minor=0, software="evil", capabilities=[], run="")
        self.ask(commands.OpenDirectory, handle=1, directory="inbox", base=b"", salt=b"s")

    def _plant(self):
        """What an operator and others have there."""
        for path, content in PLANTED.items():
            place = self.root / os.fsdecode(path)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
            place.chmod(0o640)
            os.utime(place, (1_000_000_000, 1_000_000_000))
        (self.root / "empty" / "deep").mkdir(parents=True)
        self.beside.mkdir()
        (self.beside / "secret").write_bytes(b"secret")
        (self.root / "link").symlink_to("../outside")

    # What is sent.

    def send(self, data):
        """Send, deliver, and deliver what comes back."""
        if self.random.random() < self.mutates:
            data = _mutated(data, self.random)
            self.mutated += 1
        super().send(data)

    def box(self, command, **arguments):
        """A box that our own types have put together."""
        self.asked += 1
        box = command.makeArguments(arguments, None)
        box[b"_command"] = command.commandName
        if command.requiresAnswer:
            box[b"_ask"] = b"%d" % self.asked
        return encode(box)

    def ask(self, command, **arguments):
        """Send it; whether that was answered, and not with an error."""
        return self.put(command, self.box(command, **arguments))

    def put(self, command, data):
        """Send what begins with that command; whether that was answered, and not with an error."""
        tag = b"%d" % self.asked
        self.send(data)
        boxes = parseString(bytes(self.received))
        self.received.clear()
        self.content_came = self.content_came or any(b"content" in box for box in boxes)
        mine = [box for box in boxes if tag in {box.get(b"_answer"), box.get(b"_error")}]
        ends = [box.get(b"_error_code", b"OK").decode() for box in mine]
        self.said.update((command.__name__, end) for end in ends)
        return ends == ["OK"]

    def command(self):
        """Send a random command that is well-formed, with what belongs to it."""
        kind = self.random.choice([self.of_names, self.of_streams, self.of_new_streams, self.of_new_streams])
        kind()

    def of_names(self):
        """One that names files or directories."""
        path = self.name()
        directory = Directory(path, self.random.choice([0o700, 0o777, 0]), self.random.choice([None, 5]))
        make = {
            commands.MeasureSpace: dict,
            commands.TryWrite: dict,
            commands.Walk: lambda: {
                "listing": self.random.randint(1, 3),
                "partials": True,
                "avoid": b"",
                "leave": [b"-d"],
            },
            commands.Describe: lambda: {"paths": [path, self.name()]},
            commands.Forbidden: lambda: {"paths": [path], "use": self.random.choice(list(Use))},
            commands.Settle: lambda: {"expected": [self.expected(path)], "attributes": [self.attributes()]},
            commands.MatchFinal: lambda: self.match_of(path),
            commands.ReadLinks: lambda: {"paths": [path, self.name()]},
            commands.LinkFiles: lambda: {"links": [HardLink(path, self.random.choice([b"f", path]), bytes(32))]},
            commands.PutLinks: lambda: {"policy": self.random.choice(list(OnConflict)), **self.links(path)},
            commands.ReadExtras: lambda: {"paths": [path, self.name()], "wanted": 28, "lenient": 0, "numeric": False},
            commands.Foresee: lambda: {"paths": [path], "extras": [self.extras()]},
            commands.Remove: lambda: {"removals": [Removal(path, self.version(path))]},
            commands.Prune: lambda: {"vacant": [Vacant(path, None), Vacant(self.name(), None)]},
            commands.MakeDirectories: lambda: {"directories": [directory]},
            commands.SetDirectories: lambda: {"directories": [directory], "extras": [self.extras()]},
        }
        chosen = self.random.choice(list(make))
        self.ask(chosen, handle=1, **make[chosen]())

    def of_streams(self):
        """One that goes on with a stream, which mostly suits it."""
        writing = {
            commands.MatchPartial: lambda: {"digests": [bytes(32)], "length": 5},
            commands.OfferChunks: lambda: {"chunks": deltas.cut(PLANTED[b"d/large"][:40_000])},
            commands.CommitStream: lambda: {"digest": blake3(b"x" * 10).digest(), "attributes": self.attributes()},
            commands.AbandonStream: lambda: {"keep": self.random.random() < 0.5},
        }
        reading = {
            commands.BlockDigests: lambda: {"length": BLOCK_BYTES},
            commands.SkipBlocks: lambda: {"length": 5},
            commands.CutSpan: dict,
            commands.PickChunks: lambda: {"wanted": b"\xff"},
            commands.StartRead: dict,
            commands.EndRead: dict,
            commands.CloseStream: dict,
            commands.Credit: lambda: {"amount": 1_000_000},
        }
        streams, make = self.random.choice([(self.reading, reading), (self.writing, writing)])
        if not streams:
            return
        chosen = self.random.choice(list(make))
        self.ask(chosen, stream=self.random.choice(streams[-3:]), **make[chosen]())

    def of_new_streams(self):
        """One that begins a stream, and what belongs to it."""
        path, stream, policy = self.name(), 2 * self.asked + 1, self.random.choice(list(OnConflict))
        what = self.random.randrange(4)
        if what == 0:
            self.put(commands.PutSmall, self.small(stream, path, policy))
        elif what == 1:
            if self.ask(commands.OpenWrite, handle=1, stream=stream, path=path, size=10, policy=policy):
                self.writing.append(stream)
                if self.random.random() < 0.7:
                    self.send(data_head(10) + b"x" * 10 + data_tail(stream))
        elif what == 2:
            if self.ask(commands.OpenRead, handle=1, stream=stream, path=path):
                self.reading.append(stream)
        else:
            read = self.box(commands.ReadSmall, handle=1, stream=stream, paths=[path])
            self.put(commands.ReadSmall, read)
            self.ask(commands.Credit, stream=stream, amount=1_000_000)

    def name(self):
        """Mostly of what is there, sometimes one that may not be."""
        kind = self.random.random()
        if kind < 0.2:
            return b"u/%d" % self.random.randrange(1_000)
        return self.random.choice(NAMES if kind < 0.95 else HOSTILE)

    def attributes(self):
        """Ones that are open to all, and old."""
        return self.random.choice([None, Attributes(7, 0o777)])

    def extras(self):
        """Owners, lists and extended attributes, of which some are not to be set by anybody."""
        form = self.random.choice([b"", b"\6user.x\0\1y", b"\x13user.realize.partial\0\1y", b"\7trusted\0\0", b"\xff"])
        acl = self.random.choice([b"", bytes((2, 7, 0, 0, 0, 1, 4)) + b"root", b"\1\7\0\0\0\0\0", b"\2"])
        owner = self.random.choice([Owner(0, 0, b"root", b"root"), Owner(1, 1, b"no such", b"user"), Owner(5, 5)])
        return Extras(owner, acl, acl, form, self.random.random() < 0.5)

    def content(self, path):
        """What is there now, as an attacker would guess right."""
        try:
            with open(os.path.join(os.fsencode(self.root), path), "rb") as file:
                return file.read()
        except (OSError, ValueError):
            return b"guess"

    def expected(self, path):
        """A guess, which is often right."""
        content = self.content(path)
        return Expected(path, len(content), blake3(content).digest())

    def links(self, path):
        """A symlink to anywhere, sometimes only to find out."""
        target = self.random.choice([*NAMES, *HOSTILE[1:], b"..", b"../f", b"../../d", b"d/../f", b"."])
        link = Symlink(path, target, self.random.choice([None, 7]))
        return {"links": [link], "trial": self.random.choice([None, True])}

    def match_of(self, path):
        """The same for large ones."""
        content = self.content(path)
        blocks = [blake3(content[at : at + BLOCK_BYTES]).digest() for at in range(0, len(content), BLOCK_BYTES)]
        return {
            "path": path,
            "size": len(content),
            "offset": 0,
            "digests": blocks,
            "attributes": self.attributes(),
        }

    def version(self, path):
        """Of what is there, or a lie."""
        try:
            status = os.lstat(os.path.join(os.fsencode(self.root), path))
        except (OSError, ValueError):
            return Version(1, 2, 123_456_789, 3, 4)
        return Version(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def small(self, stream, path, policy):
        """A file in one piece; some are damaged."""
        content = self.random.randbytes(10)
        digest = blake3(content).digest() if self.random.random() < 0.8 else bytes(32)
        head = SmallHead(path, 10, digest, self.attributes(), self.random.choice([None, Seen(b"x" * 16, 1)]))
        put = self.box(commands.PutSmall, handle=1, stream=stream, policy=policy, heads=[head])
        return put + data_head(10) + content + data_tail(stream)

    # What must be true.

    def end(self):
        """Look at everything."""
        if self.lost is None:
            self.wire.cut()
        self.flush()
        assert [] == [each for each in self.log.errors() if each[1] != "storage_failed"]
        assert 0 == self.responders.open_count
        assert [] == self.clock.getDelayedCalls()
        assert self.outside == scan(self.beside), "something beside the directory was touched"
        self.check_changes(scan(self.root))
        self.check_links(scan(self.root))
        self.check_trail()
        assert Right.READ in self.rights or not self.content_came, "content was sent"

    def check_links(self, after):
        """What leads somewhere, and did not before, leads to somewhere inside, but through what was there before."""
        for path in after.keys() - self.before.keys():
            place = os.path.join(os.fsencode(self.root), path)
            if os.path.islink(place) and not os.readlink(place).endswith(b"link/secret"):
                where = os.path.realpath(place) + b"/"
                assert where.startswith(os.fsencode(os.path.realpath(self.root)) + b"/"), f"{path} leads to {where}"

    def check_changes(self, after):
        """Nothing was changed without the right to."""
        may = self.rights
        before_files, after_files = finals(self.before), finals(after)
        gone = before_files.keys() - after_files.keys()
        changed = {path for path in before_files.keys() & after_files.keys() if before_files[path] != after_files[path]}
        directories_gone = {path for path in self.before.keys() - after.keys() if stat.S_ISDIR(self.before[path][0])}
        if may.isdisjoint(PUT):
            assert after.keys() <= self.before.keys(), "something was made"
        if Right.WRITE not in may:
            assert not changed or {Right.CREATE, Right.REMOVE} <= may, f"replaced or touched: {changed}"
            modes = {path for path in self.before.keys() & after.keys() if self.before[path] != after[path]} - changed
            assert may & set(PUT) or not modes, f"modes of {modes} were changed"
        if Right.REMOVE not in may:
            assert not gone, f"removed: {gone}"
        if Right.PRUNE not in may:
            assert b"empty/deep" in after, "an empty directory of the operator's was removed"
            assert Right.REMOVE in may or not directories_gone

    def check_trail(self):
        """What is said to have happened has: each removal had a file of that size, and the last word is the truth."""
        planted = {os.fsdecode(path): len(content) for path, content in PLANTED.items()}
        there = {path: {size} for path, size in planted.items()}
        last = {}
        for _, event, fields in self.log.events:
            path = fields.get("path")
            if event == "file_committed":
                there.setdefault(path, set()).add(fields["size"])
                last[path] = fields["size"]
            elif event == "file_linked" and fields["how"] == "created":
                last[path] = last.get(fields["to"], planted.get(fields["to"]))
                there.setdefault(path, set()).add(last[path])
            elif event == "link_committed":
                there.setdefault(path, set()).add(len(fields["target"]))
                last.pop(path, None)  # see `check_links`
            elif event == "file_removed":
                assert fields["size"] in there.get(path, set()), f"{path} never was"
                assert last.get(path, 0) is not None, f"{path} was gone already"
                last[path] = None
            elif event == "file_already_there":
                assert fields["size"] in there.get(path, set()), f"{path} never was"
        found = {display_name(path): os.path.join(os.fsencode(self.root), path) for path in scan(self.root)}
        for path, size in last.items():
            place = found.get(path, b"")
            is_file = os.path.isfile(place) and not os.path.islink(place)
            assert (os.path.getsize(place) if is_file else None) == size, path


def bursts(tmp_path, rights_of, count):
    """Connections one after the other, until so many commands, or mutated boxes, were sent."""
    seed, done = 0, 0
    while done < count:
        folder = tmp_path / str(seed)
        folder.mkdir()
        burst = Burst(folder, rights_of(seed), seed)
        yield burst
        burst.end()
        shutil.rmtree(folder)
        seed, done = seed + 1, done + (burst.mutated or burst.asked)


@pytest.mark.parametrize("rights", RIGHTS, ids=named)
@pytest.mark.parametrize("count", [500, pytest.param(20_000, marks=pytest.mark.soak)], ids=["sample", "many"])
def test_random_commands_do_what_the_right_allows_and_no_more(tmp_path, rights, count):
    """Well-formed commands in any order, with names, versions and contents that are often right."""
    said = Counter()
    for burst in bursts(tmp_path, lambda _: rights, count):
        while burst.lost is None and burst.asked < BURST:
            burst.command()
        said += burst.said

    done = {command for command, end in said if end == "OK"} - {"Hello", "OpenDirectory"}
    assert bool(rights) == bool(done), said


@pytest.mark.parametrize("count", [1_000, pytest.param(200_000, marks=pytest.mark.soak)], ids=["sample", "many"])
def test_mutated_boxes_do_what_the_right_allows_and_no_more(tmp_path, count):
    """The same boxes with bits flipped, pieces lost, doubled and swapped; most of them end the connection."""
    for burst in bursts(tmp_path, lambda seed: RIGHTS[seed % len(RIGHTS)], count):
        burst.mutates = 0.5
        while burst.lost is None and burst.asked < BURST:
            burst.command()


def _mutated(data, chance):
    """One to three faults, half of them where boxes have their lengths and names."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(changed)) if changed else 0
        how = chance.randrange(4)
        if how == 0 and changed:
            changed[at] ^= 1 << chance.randrange(8)
        elif how == 1:
            del changed[at : at + chance.randint(1, 8)]
        elif how == 2:
            changed[at:at] = changed[at : at + chance.randint(1, 8)]
        else:
            changed[at : at + 2] = chance.randbytes(2)
    return bytes(changed)
