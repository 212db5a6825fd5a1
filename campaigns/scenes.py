"""What can happen while files are moved, one scene for each kind; a case is one tree and a dozen events or so."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import random
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from attrs import frozen

from campaigns.attributes import AttributeOracle, AttributePlanter
from campaigns.mounts import Image, Small, Strict, run
from campaigns.oracle import Oracle, digest, files
from campaigns.producers import Producers
from campaigns.stage import Report, Stage
from campaigns.trees import LARGE, Planter

_DIRECTIONS: Final = ("push", "pull", "local")
_ALL_OF_IT: Final = ("--preserve=all", "--links", "--compress", "always")
_ACCEPTS_ALL: Final = 'accept = ["owner", "acl", "xattr"]'
EVENTS: Final = 10
"""About how many events a case has."""


def kills(folder: Path, report: Report) -> None:
    """Either side is killed at random instants."""
    rng, oracle, planter = _begin(folder, report)
    direction = rng.choice(_DIRECTIONS)
    planter.wave()
    planter.obstacles()
    stage = Stage(folder, report, oracle, direction, options=_pace(rng, direction))
    report.title = direction
    try:
        for _ in range(EVENTS):
            _go_on(stage, planter)
            _kill_one(stage, rng)
        _end(stage, planter)
    finally:
        stage.close()


def attributes(folder: Path, report: Report) -> None:
    """Everything that can be preserved is, content is compressed, and either side is hit, also at a single call."""
    rng, oracle, planter = _begin_with_attributes(folder, report)
    direction = rng.choice([*_DIRECTIONS, "between"])
    planter.wave()
    planter.obstacles()
    oracle.manifest = folder / "manifest"
    options = (*_ALL_OF_IT, "--manifest", str(oracle.manifest), *_pace(rng, direction))
    stage = Stage(folder, report, oracle, direction, options=options, further=_ACCEPTS_ALL)
    report.title = direction
    try:
        for _ in range(EVENTS):
            _go_on(stage, planter)
            if rng.random() < 0.5:
                stage.hit_at_a_call()
            else:
                _kill_one(stage, rng)
        _end(stage, planter)
    finally:
        stage.close()


def network(folder: Path, report: Report) -> None:
    """The connection is cut, reset, silent, or has a bit flipped."""
    rng, oracle, planter = _begin(folder, report)
    direction = rng.choice(_DIRECTIONS[:2])
    planter.wave(small=40, large=4)
    planter.obstacles()
    stage = Stage(folder, report, oracle, direction, proxied=True, options=("--throttle", rng.choice(["3M", "8M"])))
    # Another command than the one that a half cut connection belonged to may find files still locked.
    stage.excused = True
    report.title = direction
    try:
        for _ in range(EVENTS):
            _go_on(stage, planter)
            stage.somewhere()
            if not stage.running:
                continue
            _disturb(stage)
            stage.check()
        stage.proxy.stalled, stage.proxy.spoil = False, 0
        stage.proxy.bury()
        _end(stage, planter)
    finally:
        stage.proxy.stalled = False
        stage.close()


def _disturb(stage: Stage) -> None:
    kind = stage.rng.choice(["cut", "half cut", "stall", "flipped bit", "kill command"])
    if kind == "kill command":
        stage.kill_command()
        return
    stage.event(kind)
    if kind == "cut":
        stage.proxy.cut()
    elif kind == "half cut":
        stage.proxy.cut(both=False)
    elif kind == "flipped bit":
        stage.proxy.spoil = 1
        stage.wait(0, 0.2)
    else:
        stage.proxy.stalled = True
        time.sleep(stage.rng.uniform(0.05, 0.8))
        stage.check()
        if stage.rng.random() < 0.3:
            stage.proxy.cut()
        stage.proxy.stalled = False


def full(folder: Path, report: Report, *, all_of_it: bool = False) -> None:
    """Another program fills the file system of the destination, and frees it; at the end everything fits exactly."""
    rng, oracle, planter = (_begin_with_attributes if all_of_it else _begin)(folder, report)
    direction = rng.choice(_DIRECTIONS)
    kind = rng.choice(["tmpfs", "ext4"])
    size = 24 << 20
    with Small(folder, kind, size) as small:
        oracle.destination = small.mounted / "inbox"
        oracle.destination.mkdir()
        total = planter.wave(large=3)
        reserve = 'reserve = "1M"' if direction == "push" and rng.random() < 0.5 and _knows_reserve() else ""
        options = (*(_ALL_OF_IT if all_of_it else ()), *_pace(rng, direction))
        further = f"{reserve}\n{_ACCEPTS_ALL}" if all_of_it else reserve
        stage = Stage(folder, report, oracle, direction, options=options, further=further)
        report.title = f"{direction} {kind} {reserve}"
        filler = small.mounted / "filler"
        try:
            for _ in range(EVENTS // 2):
                _fill(filler, rng.randrange(0, total))
                stage.event("full")
                oracle.note_failures()
                stage.spawn()
                stage.disturbed = True
                stage.somewhere()
                stage.check()
                if rng.random() < 0.3:
                    stage.kill_command()
                _fill(filler, rng.randrange(0, 2 * total))
                stage.event("freed")
                stage.spawn()
                stage.disturbed = True
                stage.wait(0, 0.3)
                stage.check()
                if not any(files(oracle.source)) and not stage.running:
                    break
            stage.disturbed = True
            there = sum(status.st_size for _, status in files(oracle.destination))
            margin = (3 << 20) if kind == "ext4" or reserve else (1 << 20)
            _fill(filler, max(0, total - there) + margin)
            _end(stage, planter, again=False)
        finally:
            stage.close()


def narrow(folder: Path, report: Report) -> None:
    """The destination has space for one file at a time, and a consumer takes away what arrived."""
    rng, oracle, planter = _begin(folder, report)
    direction = rng.choice(_DIRECTIONS)
    oracle.archive = folder / "archive"
    with Small(folder, "tmpfs", 9 << 20) as small:
        oracle.destination = small.mounted / "inbox"
        oracle.destination.mkdir()
        planter.wave(small=8, large=5, largest=3 * LARGE)
        stage = Stage(folder, report, oracle, direction, options=_pace(rng, direction))
        report.title = direction
        stopping = threading.Event()
        consumer = threading.Thread(target=_consume, args=(oracle, stopping), daemon=True)
        consumer.start()
        try:
            for _ in range(EVENTS):
                _go_on(stage, planter, small=8, large=5, largest=3 * LARGE)
                stage.disturbed = True
                if sum(status.st_size for _, status in files(oracle.source)) > _room(small.mounted):
                    stage.event("less room than files")
                stage.somewhere()
                if rng.random() < 0.5:
                    stage.kill_command()
                else:
                    stage.wait(0, 1)
                stage.check()
            # A file that fits alone must arrive alone; each run has all the space once the last files are taken away.
            for _ in oracle.versions:
                if not any(files(oracle.source)):
                    break
                stage.disturbed = True
                stage.let_end()
                _wait_for_consumer(oracle)
            stage.disturbed = True
            stage.run_to_the_end()
            stage.look_for_leaks()
        finally:
            stopping.set()
            consumer.join()
            stage.close()


def _remove_what_was_left(place: bytes) -> None:
    """Remove what a kill left of a file whose own name is that of a partial: docs/safety.md says that it stays."""
    with contextlib.suppress(FileNotFoundError, BlockingIOError), open(place, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        status = os.fstat(file.fileno())
        if not status.st_mode & stat.S_ISVTX and os.path.samestat(status, os.stat(place)):
            os.unlink(place)


def _consume(oracle: Oracle, stopping: threading.Event) -> None:
    assert oracle.archive is not None
    archive = os.fsencode(oracle.archive)
    while not stopping.wait(0.05):
        for path, _ in list(files(oracle.destination)):
            place = os.path.join(os.fsencode(oracle.destination), path)
            if os.path.basename(path).count(b".realize-") > 1:
                _remove_what_was_left(place)
                continue
            with oracle.lock:
                version = oracle.versions.get(path)
                if version is None or digest(place) != version.digest:
                    continue
                os.makedirs(os.path.dirname(os.path.join(archive, path)), exist_ok=True)
                shutil.copy2(place, os.path.join(archive, path))
                os.unlink(place)


def _wait_for_consumer(oracle: Oracle) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(path in oracle.versions for path, _ in files(oracle.destination)):
        time.sleep(0.02)


def strict(folder: Path, report: Report) -> None:
    """The destination keeps only what was synced; the power is cut, and checked as if cut at each removal as well."""
    rng, oracle, planter = _begin(folder, report)
    direction = rng.choice(_DIRECTIONS)
    oracle.inodes_stay, oracle.marks_stay = False, True
    with Strict(folder) as pair:
        below = rng.choice(["", "", "new/deep"]) if direction == "push" else ""
        base = {"push": "inbox", "pull": rng.choice(["inbox", "new/deep/inbox"])}.get(
            direction, rng.choice(["inbox", "new/deep/inbox"])
        )
        oracle.source = pair.source
        oracle.destination = pair.destination / base / below
        if direction == "push":
            (pair.destination / base).mkdir()
        planter.wave(large=1)
        if base == "inbox" and not below:
            oracle.destination.mkdir(exist_ok=True)
            planter.obstacles()
        noreplace = rng.random() < 0.6
        pair.ask("begin", f"{base}/{below}", noreplace=noreplace)
        stage = Stage(folder, report, oracle, direction, below=below, options=_pace(rng, direction))
        report.title = f"{direction} to {base}/{below}{'' if noreplace else ', without RENAME_NOREPLACE'}"
        try:
            for _ in range(EVENTS):
                _go_on(stage, planter)
                if not oracle.destination.exists() and rng.random() < 0.7:
                    stage.wait_for_directory(oracle.destination)
                else:
                    stage.somewhere()
                chance = rng.random()
                if chance < 0.5:
                    stage.freeze()
                    pair.ask("cut")
                    stage.kill_all()
                    stage.event("power cut")
                    stage.check()
                    stage.revive()
                elif chance < 0.7 and stage.remote:
                    stage.kill_daemon()
                else:
                    stage.kill_command()
                stage.check()
            _end(stage, planter)
        finally:
            stage.close()
            answer = pair.ask("removals")
            report.counts["removals looked at"] += answer["removed"]
            stage.note_removals(answer["lost"], answer["bare"])


@frozen(eq=False)
class _OnImage:
    """A case whose destination is on a disk that forgets what it was not told to flush."""

    image: Image
    below: Path
    """The destination, from where the disk is mounted."""
    stage: Stage
    planter: Planter
    rng: random.Random

    def leave(self, kept: str, number: int) -> None:
        """See `Image.leave`; counts the blocks."""
        self.stage.report.counts["blocks lost"] += self.image.leave(kept, number)

    def go_back(self, kept: str, number: int) -> None:
        """Stop everything, and go on with what the disk has then: see `Image.leave`."""
        self.stage.freeze()
        self.leave(kept, number)
        self.stage.kill_all()
        self.image.revert()


@contextlib.contextmanager
def _on_image(folder: Path, report: Report, kind: str, *, all_of_it: bool, begun: bool) -> Iterator[_OnImage]:
    """A case that ends undisturbed; if ``begun``, there are files, and things in their way, on the disk from the start.

    With ``all_of_it``, all that can be preserved is.
    """
    rng, oracle, planter = (_begin_with_attributes if all_of_it else _begin)(folder, report)
    direction = rng.choice(_DIRECTIONS)
    options, further = (_ALL_OF_IT, _ACCEPTS_ALL) if all_of_it else ((), "")
    oracle.inodes_stay, oracle.marks_stay = False, True
    with Image(folder, kind) as image:
        deeper = rng.choice(["", "new/deep"]) if begun and direction == "local" else ""
        below = Path("inbox") / deeper
        oracle.destination = image.mounted / below
        (image.mounted / "inbox").mkdir()
        if begun:
            planter.wave(large=1)
            if not deeper:
                planter.obstacles()
        run("sync", "-f", image.mounted)
        options = (*options, *_pace(rng, direction))
        stage = Stage(folder, report, oracle, direction, options=options, further=further)
        report.title = f"{direction} {deeper}".rstrip()
        try:
            yield _OnImage(image, below, stage, planter, rng)
            _end(stage, planter)
        finally:
            stage.close()


def _image(kind: str, *, all_of_it: bool = False) -> Callable[[Path, Report], None]:
    def scene(folder: Path, report: Report) -> None:
        with _on_image(folder, report, kind, all_of_it=all_of_it, begun=True) as case:
            stage, rng = case.stage, case.rng
            for number in range(EVENTS):
                _go_on(stage, case.planter)
                stage.somewhere()
                kept = rng.choice(["all", "none", "some", "some", "first"])
                if rng.random() < 0.4:
                    case.go_back(kept, number)
                    stage.event("power cut")
                    stage.check()
                    stage.revive()
                    continue
                gone = stage.oracle.not_at_source()
                case.leave(kept, number)
                report.events["look after a cut"] += 1
                with case.image.look() as left:
                    stage.fault(*stage.oracle.lost(gone, left / case.below))
                if rng.random() < 0.2:
                    stage.kill_command()

    scene.__doc__ = f"The power goes under {kind}, with what its disk was not told to flush."
    return scene


def _dying(kind: str) -> Callable[[Path, Report], None]:
    def scene(folder: Path, report: Report) -> None:
        with _on_image(folder, report, kind, all_of_it=True, begun=False) as case:
            stage = case.stage
            for number in range(EVENTS):
                _go_on(stage, case.planter)
                stage.somewhere()
                case.image.fail()
                stage.event("disk fails")
                stage.oracle.note_failures()
                # What is answered from now on is answered while, or after, the file system notices.
                stage.wait(0, case.rng.choice([0.05, 0.5, 3]))
                case.go_back("none", number)
                stage.check()
                stage.revive()

    scene.__doc__ = f"The disk under {kind} fails, and is as it was when it took its last flush."
    return scene


_WRITTEN_BACK_S: Final = 0.2
"""In this time the kernel has tried to write a few files to a disk in memory."""


def _unwritten(kind: str) -> Callable[[Path, Report], None]:
    def scene(folder: Path, report: Report) -> None:
        rng, oracle, planter = _begin(folder, report)
        direction = rng.choice(_DIRECTIONS)
        oracle.inodes_stay, oracle.marks_stay = False, True
        with Image(folder, kind) as image:
            oracle.destination = image.mounted / "inbox"
            oracle.destination.mkdir()
            stage = Stage(folder, report, oracle, direction, options=_pace(rng, direction))
            report.title = direction
            try:
                for number in range(EVENTS):
                    stage.judge()
                    planter.wave(small=20, large=1)
                    with planter.copies() as copies:
                        run("sync", "-f", image.mounted)
                        image.fail()
                        for copy in copies:
                            copy.write_in_vain(told=rng.random() < 0.5)
                        time.sleep(_WRITTEN_BACK_S)
                        image.heal()
                    stage.event("copies not written")
                    # What the first command is told of a failure, the second one is not.
                    for _ in range(rng.choice([1, 2])):
                        stage.spawn()
                        stage.disturbed = True
                        stage.wait(0.3, 3)
                        stage.kill_command()
                    report.counts["blocks lost"] += image.leave("none", number)
                    stage.kill_all()
                    image.revert()
                    stage.check()
                    stage.revive()
                _end(stage, planter)
            finally:
                stage.close()

    scene.__doc__ = f"Another program has copied some files onto {kind} already, and the disk has taken none of it."
    return scene


def producers(folder: Path, report: Report) -> None:
    """Programs create, append, replace and store at the source while runs are going on, killed and cut off."""
    rng, oracle, planter = _begin(folder, report)
    direction = rng.choice(_DIRECTIONS)
    # Mappings need a file system that updates a file's times for stores; tmpfs does not.
    disk = Path("/var/tmp") / f"campaign-{os.getpid()}-{report.seed}"
    disk.mkdir()
    oracle.source = disk / "source"
    oracle.source.mkdir()
    planter.wave()
    stage = Stage(folder, report, oracle, direction, proxied=direction != "local", options=_pace(rng, direction))
    report.title = direction
    stage.may_leave = True
    working = Producers(oracle, disk / "spool", report.seed, mappings=True)
    try:
        for _ in range(EVENTS):
            stage.spawn()
            stage.disturbed = True
            stage.wait(0.1, 1)
            chance = rng.random()
            if stage.running and chance < 0.5:
                stage.kill_command()
            elif chance < 0.7 and stage.remote:
                stage.event("cut")
                stage.proxy.cut()
            elif stage.remote:
                stage.kill_daemon()
            stage.check()
        working.stop()
        stage.disturbed = True
        _end(stage, planter)
    finally:
        working.stop()
        stage.fault(*working.faults)
        report.counts.update(working.counts)
        stage.close()
        shutil.rmtree(disk, ignore_errors=True)


def rivals(folder: Path, report: Report) -> None:
    """Two commands push the same names: the same files, or others, of which none may replace the other."""
    rng, oracle, planter = _begin(folder, report)
    planter.wave(small=30, large=3)
    other = Oracle(folder / "other", oracle.destination)
    other.source.mkdir()
    same = rng.random() < 0.5
    options = _pace(rng, "push")
    if same:
        other = oracle
        planter.obstacles()
    else:
        options = (*options, "--on-conflict", rng.choice(["fail", "skip"]))
        for path in list(oracle.versions):
            Planter(other, random.Random(rng.random())).put(path, rng.randbytes(rng.choice([10, 5000, LARGE + 5000])))
    for path, version in oracle.versions.items():
        _contend(oracle, other, path, version.digest)
    stages = [Stage(folder, report, oracle, "push", options=options)]
    stages.append(stages[0].beside(folder / "second", other))
    for stage in stages:
        stage.may_leave = True
    report.title = "the same files" if same else " ".join(options)
    try:
        for _ in range(EVENTS):
            for stage in stages:
                stage.spawn()
                stage.disturbed = True
            stages[0].somewhere()
            if rng.random() < 0.2:
                stages[0].kill_daemon()
            else:
                rng.choice(stages).kill_command()
            for stage in stages:
                stage.check()
            if same and not any(files(oracle.source)) and not any(stage.running for stage in stages):
                planter.wave(small=20, large=2)
        for stage in stages:
            stage.disturbed = True
        if same:
            stages[1].let_end()
            _end(stages[0], planter)
        else:
            for stage in stages:
                stage.let_end()
                stage.check()
    finally:
        for stage in stages:
            stage.close()


def _contend(one: Oracle, other: Oracle, path: bytes, content: str) -> None:
    """Either content of a name may be at the destination."""
    if one is not other:
        other.earlier.setdefault(path, set()).add(content)
        one.earlier.setdefault(path, set()).add(other.versions[path].digest)


SCENES: Final[dict[str, Callable[[Path, Report], None]]] = {
    "kills": kills,
    "attributes": attributes,
    "network": network,
    "full": full,
    "narrow": narrow,
    "strict": strict,
    "ext4": _image("ext4"),
    "xfs": _image("xfs"),
    "btrfs": _image("btrfs"),
    "attributes-full": functools.partial(full, all_of_it=True),
    "attributes-ext4": _image("ext4", all_of_it=True),
    "attributes-xfs": _image("xfs", all_of_it=True),
    "attributes-btrfs": _image("btrfs", all_of_it=True),
    "dying-ext4": _dying("ext4"),
    "dying-btrfs": _dying("btrfs"),
    "unwritten-ext4": _unwritten("ext4"),
    "unwritten-xfs": _unwritten("xfs"),
    "producers": producers,
    "rivals": rivals,
}


def _begin(folder: Path, report: Report) -> tuple[random.Random, Oracle, Planter]:
    rng = random.Random(f"{report.scene}:{report.seed}")
    oracle = Oracle(folder / "source", folder / "inbox")
    for each in (oracle.source, oracle.destination):
        each.mkdir()
    return rng, oracle, Planter(oracle, rng)


def _begin_with_attributes(folder: Path, report: Report) -> tuple[random.Random, AttributeOracle, AttributePlanter]:
    rng, plain, _ = _begin(folder, report)
    oracle = AttributeOracle(plain.source, plain.destination)
    return rng, oracle, AttributePlanter(oracle, rng)


def _pace(rng: random.Random, direction: str) -> tuple[str, ...]:
    return ("--throttle", rng.choice(["4M", "10M", "30M"])) if direction != "local" and rng.random() < 0.7 else ()


def _go_on(stage: Stage, planter: Planter, *, small: int = 20, large: int = 1, largest: int = 2 * LARGE) -> None:
    """Make sure that a command is running and has something to do."""
    if not stage.running:
        stage.judge()
        if not any(files(stage.oracle.source)):
            planter.wave(small=small, large=large, largest=largest)
        stage.spawn()


def _kill_one(stage: Stage, rng: random.Random) -> None:
    """Kill the command, or the daemon, at some instant."""
    stage.somewhere()
    if stage.remote and rng.random() < 0.4:
        stage.kill_daemon()
    else:
        stage.kill_command()
    stage.check()


def _end(stage: Stage, planter: Planter, *, again: bool = True) -> None:
    """Let the work finish; then move the same names once more, which nothing may block."""
    stage.run_to_the_end()
    if again and not stage.report.faults:
        planter.again(4)
        stage.run_to_the_end("the same names again")
    stage.look_for_leaks()


def _fill(filler: Path, leave: int) -> None:
    """Fill a file system until a number of bytes are left."""
    filler.unlink(missing_ok=True)
    amount = _room(filler.parent) - leave
    if amount > 0:
        try:
            with filler.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, amount)
        except OSError:
            filler.unlink(missing_ok=True)


def _room(folder: Path) -> int:
    room = os.statvfs(folder)
    return room.f_bavail * room.f_frsize


def _knows_reserve() -> bool:
    import realize.config

    return "reserve" in Path(realize.config.__file__).read_text()
