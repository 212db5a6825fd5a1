"""However a run ends, all that it says is what is on the two disks: real commands, a daemon, and every way to end.

The command is held up by its output, which nobody reads any further, until what ends the run has happened; so it is
always in the middle of its work.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import subprocess
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from realize.fs.names import is_partial
from tests.processes import Proxy, Site, digests, files_below

ARRIVED = {"created", "replaced", "already_there"}
LARGE = 24 << 20
SMALL_FILES = 600
SMALL = 24 << 10
"""Together more than is under way at a time, however slow the machine: five batches of 2 MiB."""
LIMIT = 5.0
WAYS = ["push", "pull", "local"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A daemon for all of them."""
    site = Site(tmp_path_factory.mktemp("site"))
    site.start()
    yield site
    site.stop()


def of_kind(kind, lines):
    """The JSON objects of one kind among many lines; only those that have its name somewhere are parsed."""
    return [each for line in lines if kind in line and (each := json.loads(line))["event"] == kind]


class Trial:
    """One run: its two directories, and what it says."""

    def __init__(self, site, folder, way, *, json_lines=True):
        self.site, self.folder, self.way, self.json = site, folder, way, json_lines
        served = site.inbox / folder.name
        here = folder / "here"
        self.source, self.destination = (served, here) if way == "pull" else (here, served)
        if way == "local":
            self.destination = folder / "there"
        self.destination.mkdir()
        for number in range(SMALL_FILES):
            directory = self.source / f"d{number // 250}"
            if not number % 250:
                directory.mkdir(parents=True)
            (directory / f"f{number}").write_bytes(b"%*d" % (SMALL, number))
        with (self.source / "big").open("wb") as file:
            for number in range(LARGE >> 10):
                file.write(b"%1024d" % -number)
        self.sizes = dict.fromkeys((f"d{number // 250}/f{number}" for number in range(SMALL_FILES)), SMALL)
        self.sizes["big"] = LARGE
        self.before = digests(self.source)
        self.manifest = (folder / "manifest").open("a+")
        self.proxy = None

    def slowly(self, rate="4M"):
        """The options with which the large file takes a while; there are none where nothing travels."""
        return () if self.way == "local" else ("--throttle", rate)

    def locations(self):
        """The two arguments of the command."""
        served = f"127.0.0.1:{self.proxy.port}" if self.proxy else "hostb"
        remote = f"{served}::inbox/{self.folder.name}"
        source = remote if self.way == "pull" else self.source
        return source, remote if self.way == "push" else self.destination

    def start(self, *options, until=b'"finished"|moved: '):
        """Start it, and read until that is said, by default that a file has arrived; then read no more."""
        self.read_end, write_end = os.pipe()
        fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 4096)
        self.began = time.monotonic()
        arguments = [
            *("--metrics-textfile", self.folder / "metrics.prom", "--log-file", self.folder / "log"),
            *("--manifest", self.folder / "manifest", "--log-format", "json"),
            *("--jobs", "1", *options),
            *(("--json",) if self.json else ("-v", "--no-progress")),
            *(("--peer-key", self.site.keys["daemon"]) if self.proxy else ()),
            *self.locations(),
        ]
        with (self.folder / "other").open("wb") as other:
            streams = (write_end, other) if self.json else (other, write_end)
            self.process = self.site.spawn(*arguments, stdout=streams[0], stderr=streams[1])
        os.close(write_end)
        self.said = b""
        while not re.search(until, self.said):
            assert self.read(), self.said

    def read(self, most=256):
        """Read a little; False at the end."""
        some = os.read(self.read_end, most)
        self.said += some
        return bool(some)

    def end(self):
        """Read to the end; the exit code."""
        fcntl.fcntl(self.read_end, fcntl.F_SETPIPE_SZ, 1 << 20)
        while self.read(1 << 16):
            pass
        return self.process.wait(60)

    def close(self):
        """Leave nothing open."""
        self.manifest.close()
        os.close(self.read_end)
        if self.proxy:
            self.proxy.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def size_of(self, paths):
        """How large files were, together."""
        return sum(self.sizes[path] for path in paths)

    # What is said, and what is.

    def events(self, kind):
        """The JSON objects of one kind, by path."""
        whole = [line for line in self.said.decode().splitlines() if line.endswith("}")]
        return {each.get("path", ""): each for each in of_kind(kind, whole)}

    def logged(self, kind):
        """The records of one kind, by path."""
        lines = (self.folder / "log").read_text().splitlines()
        return {each.get("path", ""): each for each in of_kind(kind, lines)}

    def recorded(self, kind):
        """The paths that the manifest has of one kind."""
        self.manifest.seek(0)
        whole = [line for line in self.manifest if line.endswith("}\n")]
        return {each["path"] for each in of_kind(kind, whole)}

    def metrics(self):
        """The textfile: what became of the files, and all single values."""
        families = list(text_string_to_metric_families((self.folder / "metrics.prom").read_text()))
        samples = [sample for family in families for sample in family.samples]
        files = {each.labels["result"]: each.value for each in samples if each.name == "realize_last_files"}
        return files, {each.name: each.value for each in samples}

    def gone(self):
        """What the source has lost."""
        return {os.fsdecode(path) for path in set(self.before) - set(files_below(self.source))}

    def there(self):
        """What the destination has, whole and under its name."""
        found = digests(self.destination)
        return {os.fsdecode(path) for path, digest in self.before.items() if found.get(path) == digest}

    def partials(self):
        """The sizes of the partials at the destination."""
        return [each.stat().st_size for each in self.destination.rglob("*") if is_partial(os.fsencode(each.name))]


def between(least, found, unknown):
    """Whether what was found is what was said, but for what was said to be unknown."""
    assert (set(), set()) == (least - found, found - least - unknown)


def compare(trial, code, *, recorded=True):
    """Everything that the run has said, with the two disks, and with each other; perhaps not all was ``recorded``."""
    moved, copied = set(trial.logged("file_moved")), set(trial.logged("file_copied"))
    known = moved | copied | set(trial.logged("file_failed"))
    unknown = {path: each for path, each in trial.logged("file_unknown").items() if path not in known}
    perhaps_there = {path for path, each in unknown.items() if each["how"] is None}
    perhaps_gone = set(unknown) - perhaps_there
    failed = set(trial.logged("file_failed"))
    stopped = {path: each["done"] for path, each in trial.logged("transfer_stopped").items()}
    arrived = moved | copied | perhaps_gone

    between(moved, trial.gone(), perhaps_gone)
    between(arrived, trial.there(), perhaps_there)
    manifest = tuple(map(trial.recorded, ("removed", "durable", "unknown")))
    if recorded:
        assert (moved, arrived, perhaps_there) == (*manifest[:2], manifest[2] - known)
    else:
        assert manifest[0] <= moved <= manifest[1] <= arrived

    [ended] = trial.logged("run_ended").values()
    started = arrived | perhaps_there | failed
    interrupted = {path: done for path, done in stopped.items() if path not in started}
    assert (len(moved), len(perhaps_there), len(perhaps_gone), len(failed), code) == tuple(
        ended[name] for name in ("removed", "unknown", "unknown_removals", "failed", "exit_code")
    )
    assert len(arrived) == sum(ended[how] for how in ARRIVED)
    assert trial.size_of(arrived) == ended["arrived_bytes"]

    files, values = trial.metrics()
    assert {how: ended[how] for how in files if how != "remaining"} == {
        how: count for how, count in files.items() if how != "remaining"
    }
    assert ended["found"] == sum(files.values())
    assert (code, len(perhaps_gone)) == (values["realize_last_exit_code"], values["realize_last_unknown_removals"])
    if not unknown and None not in stopped.values():
        partials = trial.partials()
        # What a file that failed has left may have gone to make room for others.
        assert [done for done in interrupted.values() if done and done not in partials] == []
        assert set(partials) <= set(stopped.values())
    return ended, interrupted


def compare_json(trial, code, ended, interrupted):
    """The JSON objects with the rest."""
    finished, unknown = trial.events("finished"), trial.events("unknown")
    assert {path: each["removed"] for path, each in finished.items()} == {
        **dict.fromkeys(trial.logged("file_copied"), False),
        **dict.fromkeys(trial.logged("file_moved"), True),
    }
    assert {path: each["how"] for path, each in unknown.items()} == {
        path: each["how"] for path, each in trial.logged("file_unknown").items()
    }
    [summary] = trial.events("summary").values()
    assert summary["found_files"] == ended["found"]
    for name in ("removed", "failed", "unknown", "unknown_removals", "arrived_bytes", "sent_bytes", *ARRIVED):
        assert (name, ended[name]) == (name, summary[name])
    assert interrupted == {each["path"]: each["reached"] for each in summary["interrupted"]}
    accounted = sum(ended[name] for name in ("failed", "unknown", *ARRIVED))
    assert ended["found"] == accounted + len(interrupted) + summary["not_started"]
    assert code == summary["exit_code"]


def compare_sentence(trial, ended, interrupted):
    """The last sentence with the rest."""
    [*_, last] = [
        line for line in trial.said.decode().splitlines() if re.search(r"\bmoved [\d,]+ files?|reached: ", line)
    ]
    numbers = {name: int(number.replace(",", "")) for number, name in re.findall(r"(\d[\d,]*) (\w+)", last)}
    arrived = sum(ended[how] for how in ARRIVED)
    assert (arrived, ended["failed"], ended["unknown"]) == (
        numbers["file" if arrived == 1 else "files"],
        numbers.get("failed", 0),
        numbers.get("unknown", 0),
    )
    if "reached: " in last:
        accounted = arrived + ended["failed"] + ended["unknown"] + len(interrupted)
        assert ended["found"] - accounted == numbers["found"]
        assert sorted(interrupted) == re.findall(r"interrupted: (\w+) ", last)


def check(trial, code, **options):
    """Compare all that this run can be compared by."""
    ended, interrupted = compare(trial, code, **options)
    if trial.json:
        compare_json(trial, code, ended, interrupted)
    else:
        compare_sentence(trial, ended, interrupted)
    return ended, interrupted


def natural(trial):
    """To its end."""
    trial.start()
    assert 0 == trial.end()
    ended, interrupted = check(trial, 0)
    assert (SMALL_FILES + 1, {}) == (ended["removed"], interrupted)


def limited(trial):
    """A time limit, reached while files are under way."""
    trial.start("--max-duration", f"{LIMIT}s", *trial.slowly())
    time.sleep(max(0.0, trial.began + LIMIT + 0.3 - time.monotonic()))
    assert 11 == trial.end()
    ended, _ = check(trial, 11)
    assert 0 < ended["removed"] < SMALL_FILES


def limited_with_grace(trial):
    """A time limit that lets what is under way finish."""
    trial.start("--max-duration", f"{LIMIT}s", "--grace", "60s")
    time.sleep(max(0.0, trial.began + LIMIT + 0.3 - time.monotonic()))
    assert 11 == trial.end()
    ended, interrupted = check(trial, 11)
    assert ({}, True) == (interrupted, ended["removed"] < SMALL_FILES)


def signalled(number):
    """A signal."""

    def end(trial):
        trial.start(*trial.slowly())
        trial.process.send_signal(number)
        assert 20 == trial.end()
        ended, _ = check(trial, 20)
        assert 0 < ended["removed"] < SMALL_FILES

    return end


def signalled_twice(trial):
    """On the spot: there is no summary; what was said until then is true, and the metrics tell what is known."""
    trial.start()
    trial.process.send_signal(signal.SIGINT)
    trial.process.send_signal(signal.SIGTERM)
    assert 20 == trial.end()
    finished = {path for path, each in trial.events("finished").items() if each["removed"]}
    assert [] == list(trial.events("summary"))
    files, _ = trial.metrics()
    assert files["created"] <= len(trial.gone()) <= len(trial.there()) <= files["created"] + files["unknown"]
    assert finished | set(trial.logged("file_moved")) | trial.recorded("removed") <= trial.gone()
    assert trial.gone() <= trial.recorded("durable") <= trial.there()


def lost(trial):
    """The connection breaks, and is not tried again; what no answer came to is unknown."""
    trial.proxy = Proxy(trial.site.port)
    trial.start("--no-retry", *trial.slowly())
    trial.proxy.cut()
    assert 1 == trial.end()
    ended, _ = check(trial, 1)
    assert 0 < ended["removed"] < SMALL_FILES


def lost_and_found(trial):
    """The connection breaks, and the run comes back: what was unknown is known in the end."""
    trial.proxy = Proxy(trial.site.port)
    trial.start(*trial.slowly("20M"))
    trial.proxy.cut()
    assert 0 == trial.end()
    ended, interrupted = check(trial, 0)
    assert (SMALL_FILES + 1, 0, 0, {}) == (ended["removed"], ended["unknown"], ended["unknown_removals"], interrupted)


def unrecorded(trial):
    """The manifest cannot be written any more: nothing is removed that it does not have."""
    trial.start()
    (trial.folder / "manifest").unlink()
    assert 1 == trial.end()
    ended, _ = check(trial, 1, recorded=False)
    assert 0 < ended["removed"] < SMALL_FILES


def full(trial):
    """Somebody else fills the destination while the large file is on its way."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", trial.destination], check=True)
    try:
        trial.start()
        with (trial.destination / "other").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(1 << 16)):
                pass
        assert 1 == trial.end()
        ended, _ = check(trial, 1)
        assert 0 < ended["failed"]
        assert SMALL_FILES + 1 == ended["removed"] + ended["failed"]
    finally:
        subprocess.run(["umount", "-l", trial.destination], check=True)


def changed(trial):
    """The large file changes while it is on its way: what was sent of it is nobody's, and it is sent again."""
    trial.start(*trial.slowly("20M"), until=b'"started"|moved: ')
    # Where nothing travels, it may be gone already.
    with contextlib.suppress(FileNotFoundError):
        with (trial.source / "big").open("r+b") as file:
            file.seek(0, os.SEEK_END)
            trial.sizes["big"] += file.write(b"more")
        trial.before[b"big"] = digests(trial.source)[b"big"]
    assert 0 == trial.end()
    ended, interrupted = check(trial, 0)
    assert (SMALL_FILES + 1, {}) == (ended["removed"], interrupted)


ENDS = {
    "natural end": natural,
    "limit": limited,
    "limit with grace": limited_with_grace,
    "SIGINT": signalled(signal.SIGINT),
    "SIGINT twice": signalled_twice,
    "SIGTERM": signalled(signal.SIGTERM),
    "SIGHUP": signalled(signal.SIGHUP),
    "SIGQUIT": signalled(signal.SIGQUIT),
    "connection lost": lost,
    "connection lost for a while": lost_and_found,
    "manifest error": unrecorded,
    "disk full": full,
    "source changed": changed,
}


@pytest.mark.usefixtures("hangups_end")
@pytest.mark.parametrize(
    ("end", "way"),
    [(end, way) for end in ENDS for way in WAYS if not (end.startswith("connection") and way == "local")],
)
def test_what_is_said_is_what_is(site, tmp_path, end, way):
    """Objects, summary, log, metrics and manifest agree with each other, and with what both directories have."""
    with contextlib.closing(Trial(site, tmp_path, way)) as trial:
        ENDS[end](trial)


@pytest.mark.usefixtures("hangups_end")
@pytest.mark.parametrize("end", ["natural end", "limit", "SIGINT", "connection lost", "disk full"])
def test_what_people_are_told_is_what_is(site, tmp_path, end):
    """The last sentence agrees with all that, too."""
    with contextlib.closing(Trial(site, tmp_path, "push", json_lines=False)) as trial:
        ENDS[end](trial)


def test_a_run_that_is_ended_by_force_tells_what_it_does_not_know(site, tmp_path):
    """Nobody ever reads what it says, so it cannot end in order; its one line, and the metrics, claim nothing else."""
    with contextlib.closing(Trial(site, tmp_path, "push")) as trial:
        trial.start("--max-duration", f"{LIMIT}s", *trial.slowly())
        assert 11 == trial.process.wait(60)
        last = (trial.folder / "other").read_text()
        files, _ = trial.metrics()

    arrived, unknown = files["created"], files["unknown"]
    assert f"{arrived:,.0f} files, " in last
    assert f"{unknown:,.0f} unknown" in last
    assert arrived <= len(trial.gone()) <= len(trial.there()) <= arrived + unknown
