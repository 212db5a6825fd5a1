"""The command and the daemon as their users run them: real processes, real sockets, real files."""

import json
import os
import random
import shutil
import signal
import subprocess
import time

import pytest

from tests.leftovers import leave_partial, partial_at
from tests.processes import Site, digests, plant, wait_for


@pytest.fixture
def site(tmp_path):
    """A daemon that serves ``inbox`` to a command with all rights."""
    site = Site(tmp_path)
    site.start()
    yield site
    site.stop()


def clean(done):
    """Exit code and standard error of a run that went well and was told to be quiet."""
    return done.returncode, done.stderr


def modes(folder):
    """Permission bits and modification time by relative path."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mode & 0o777, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_local_to_remote(site, tmp_path):
    """A tree moves to the daemon: all content, times and modes arrive, and no file is left at the source."""
    source = tmp_path / "source"
    original = plant(source, 1, small=60, large=2)
    (source / "large 0").chmod(0o640)
    os.utime(source / "large 1", ns=(1, 1_234_567_890_123_456_789))
    attributes = modes(source)

    done = site.realize("--quiet", source, "hostb::inbox")

    assert (0, "") == clean(done)
    assert original == digests(site.inbox)
    assert attributes == modes(site.inbox)
    assert {} == digests(source)


def test_remote_to_local(site, tmp_path):
    """A tree moves from the daemon, whose files are gone afterwards."""
    original = plant(site.inbox, 2, small=60, large=2)
    attributes = modes(site.inbox)

    done = site.realize("--quiet", "hostb::inbox", tmp_path / "new" / "target")

    assert (0, "") == clean(done)
    assert original == digests(tmp_path / "new" / "target")
    assert attributes == modes(tmp_path / "new" / "target")
    assert {} == digests(site.inbox)


def test_what_has_more_content_than_its_size_says_is_an_error(site):
    """A file of /proc says that it is empty: its copy would be, too."""
    done = site.realize("copy", "/proc/sys/kernel/ostype", "hostb::inbox")

    assert 1 == done.returncode
    assert "ostype: has more content than its size of 0 bytes says" in done.stderr
    assert [] == list(site.inbox.iterdir())


def test_remote_to_remote(site, tmp_path):
    """The bytes pass through the command when both sides are remote."""
    (tmp_path / "other").mkdir()
    second = Site(tmp_path / "other")
    second.start()
    try:
        config = site.folder / "realize.toml"
        config.write_text(
            config.read_text()
            + f'[peers.hostc]\naddress = "127.0.0.1:{second.port}"\nkey = "{second.keys["daemon"]}"\n'
        )
        daemon = second.folder / "realized.toml"
        daemon.write_text(daemon.read_text().replace(second.keys["command"], site.keys["command"]))
        second.stop()
        second.start()
        original = plant(site.inbox, 3, small=40, large=2)

        done = site.realize("--quiet", "hostb::inbox", "hostc::inbox/sub")

        assert (0, "") == clean(done)
        assert original == digests(second.inbox / "sub")
        assert {} == digests(site.inbox)
    finally:
        second.stop()


def test_local_to_local(tmp_path):
    """Without any daemon the same algorithm moves between two local directories."""
    original = plant(tmp_path / "a", 4, small=40, large=2)
    site = Site(tmp_path / "site") if (tmp_path / "site").mkdir() is None else None

    done = site.realize("--quiet", tmp_path / "a", tmp_path / "b")

    assert (0, "") == clean(done)
    assert original == digests(tmp_path / "b")
    assert {} == digests(tmp_path / "a")


def test_copy_leaves_the_source(site, tmp_path):
    """`copy` does the same and removes nothing; a second one sends nothing."""
    original = plant(tmp_path / "source", 5, small=20, large=1)

    first = site.realize("copy", "--json", tmp_path / "source", "hostb::inbox")
    second = site.realize("copy", "--json", tmp_path / "source", "hostb::inbox")

    assert [0, 0] == [first.returncode, second.returncode]
    assert original == digests(tmp_path / "source") == digests(site.inbox)
    assert 0 == sum(json.loads(line).get("sent", 0) for line in second.stdout.splitlines()[:-1])


def directories(folder):
    """The directories below a folder, by relative path."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_dir())


@pytest.mark.parametrize("remote", [False, True])
def test_directories_at_the_source_stay(site, tmp_path, remote):
    """Whoever writes into a directory whose files were all moved finds it there for the next one."""
    source = site.inbox if remote else tmp_path / "source"
    plant(source, 3, small=30, large=1)
    (source / "empty" / "below").mkdir(parents=True)
    before = directories(source)

    done = site.realize("--quiet", "hostb::inbox" if remote else source, tmp_path / "target")

    assert (0, "") == clean(done)
    assert {} == digests(source)
    assert before == directories(source)


@pytest.mark.parametrize("remote", [False, True])
def test_prune_dirs_removes_what_has_long_been_empty(site, tmp_path, remote):
    """Empty directories as old as asked for go, with those that held only such ones; nothing else does."""
    source = site.inbox if remote else tmp_path / "source"
    for name in ("old/deep", "old/deeper/still", "used", "young"):
        (source / name).mkdir(parents=True)
    (source / "used" / "link").symlink_to("nowhere")
    for name in ("old/deep", "old/deeper/still", "old/deeper", "old", "used"):
        os.utime(source / name, (1e9, 1e9))
    (source / "file").write_bytes(b"content")

    first = site.realize("--json", "--prune-dirs", "hostb::inbox" if remote else source, tmp_path / "target")
    kept = directories(source)
    second = site.realize("--prune-dirs=0", "hostb::inbox" if remote else source, tmp_path / "target")

    events = [json.loads(line) for line in first.stdout.splitlines()]
    assert ["old/deep", "old/deeper/still", "old/deeper", "old"] == [
        event["path"] for event in events if event["event"] == "pruned"
    ]
    assert (4, 1) == (events[-1]["pruned"], events[-1]["removed"])
    assert ["used", "young"] == kept
    assert ["used"] == directories(source)
    assert "1 empty directory removed" in second.stderr
    site.stop()
    told = [record["path"] for record in site.records() if record.get("event") == "directory_removed"]
    assert told == (["old/deep", "old/deeper/still", "old/deeper", "old", "young"] if remote else [])


def test_prune_dirs_without_the_right_to_leaves_what_others_emptied(tmp_path):
    """What the peer has emptied goes, also in a later run; a directory that was empty all along stays."""
    site = Site(tmp_path, rights=["read", "remove"])
    site.start()
    (site.inbox / "operators").mkdir()
    (site.inbox / "a" / "b").mkdir(parents=True)
    (site.inbox / "a" / "b" / "file").write_bytes(b"content")

    moved = site.realize("hostb::inbox", tmp_path / "target")
    kept = directories(site.inbox)
    pruned = site.realize("--prune-dirs=0", "hostb::inbox", tmp_path / "target")
    site.stop()

    assert [0, 0] == [moved.returncode, pruned.returncode]
    assert ["a", "a/b", "operators"] == sorted(kept)
    assert ["operators"] == directories(site.inbox)


def test_who_may_create_only_replaces_nothing(tmp_path):
    """A file of the same name ends in a refusal that says why, and stays at both ends; new names arrive."""
    site = Site(tmp_path, rights=["create"])
    site.start()
    source = tmp_path / "source"
    source.mkdir()
    (site.inbox / "taken").write_bytes(b"archived")
    for name in ("taken", "new"):
        (source / name).write_bytes(b"from a camera")

    done = site.realize("--on-conflict", "replace", source, "hostb::inbox")
    site.stop()

    assert 1 == done.returncode
    assert "taken: exists already; this peer may create files there, but not replace any" in done.stderr
    assert ["taken"] == os.listdir(source)
    assert (b"archived", b"from a camera") == tuple((site.inbox / name).read_bytes() for name in ("taken", "new"))


def test_prune_dirs_in_a_dry_run(site, tmp_path):
    """The directories that would go are named on stdout, and stay."""
    source = tmp_path / "source"
    (source / "a" / "b").mkdir(parents=True)

    done = site.realize("--dry-run", "--prune-dirs=0s", source, "hostb::inbox")

    assert ["prune - a/b", "prune - a"] == [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "2 empty directories would be removed" in done.stderr
    assert ["a", "a/b"] == directories(source)


def test_a_single_file_lands_under_its_name(site, tmp_path):
    """A file as source lands in the destination directory, which is created."""
    (tmp_path / "one.txt").write_text("content")

    done = site.realize("--quiet", tmp_path / "one.txt", "hostb::inbox/deep/er")

    assert (0, "") == clean(done)
    assert "content" == (site.inbox / "deep" / "er" / "one.txt").read_text()
    assert not (tmp_path / "one.txt").exists()


@pytest.mark.parametrize("way", ["push", "pull", "local", "between"])
def test_directories_arrive_as_private_as_they_were(site, tmp_path, way):
    """Permission bits and times of directories of small and large files, in every direction, whatever the umask."""
    source = site.inbox / "from" if way in {"pull", "between"} else tmp_path / "source"
    target = site.inbox / "to" if way in {"push", "between"} else tmp_path / "target"
    for name, mode in (("private/shown", 0o755), ("private", 0o700), ("closed", 0o555), ("open", 0o777)):
        (source / name).mkdir(parents=True, exist_ok=True)
        (source / name / "small").write_bytes(b"content")
        (source / name / "large").write_bytes(b"content" * 500_000)
        (source / name / "small").chmod(0o600)
        (source / name).chmod(mode)
    for folder in (source / "private/shown", source / "private", source / "closed", source / "open"):
        os.utime(folder, ns=(1, 1_234_567_890_123_456_789))
    source.chmod(0o700)
    before = {**modes(source), **folders(source)}

    names = [f"hostb::inbox/{each.name}" if site.inbox in each.parents else each for each in (source, target)]
    done = site.realize("--quiet", *names)

    assert (0, "") == clean(done)
    assert before == {**modes(target), **folders(target)}
    assert 0o700 == target.stat().st_mode & 0o777


def folders(folder):
    """Permission bits and modification times of the directories below a folder."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mode & 0o777, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_dir()
    }


@pytest.mark.parametrize("way", ["push", "pull", "local"])
def test_what_is_there_already_is_not_more_open_than_its_source(site, tmp_path, way):
    """A private file whose content is there already, in a file that all may read, ends as private as it was."""
    source = site.inbox if way == "pull" else tmp_path / "source"
    target = site.inbox if way == "push" else tmp_path / "target"
    for folder in (source, target):
        folder.mkdir(exist_ok=True)
        (folder / "small").write_bytes(b"content")
        (folder / "large").write_bytes(b"content" * 500_000)
    for name in ("small", "large"):
        (source / name).chmod(0o600)
        os.utime(source / name, ns=(1, 1_234_567_890_123_456_789))
        (target / name).chmod(0o644)
    before = modes(source)

    names = {source: "hostb::inbox" if way == "pull" else source, target: "hostb::inbox" if way == "push" else target}
    done = site.realize("--json", "--on-conflict", "fail", "--trust-source", names[source], names[target])

    assert 2 == json.loads(done.stdout.splitlines()[-1])["already_there"]
    assert before == modes(target)
    assert {} == digests(source)


def test_equal_size_and_time_with_other_content_is_not_the_same(site, tmp_path):
    """Size and time prove nothing: the source's content arrives, and is not lost."""
    (tmp_path / "source").mkdir()
    for name, size in (("small", 100), ("large", 3 << 20)):
        (tmp_path / "source" / name).write_bytes(b"a" * size)
        (site.inbox / name).write_bytes(b"b" * size)
        for folder in (tmp_path / "source", site.inbox):
            os.utime(folder / name, ns=(10**18, 10**18))
    original = digests(tmp_path / "source")
    time.sleep(0.05)

    done = site.realize("--quiet", "--on-conflict", "replace", tmp_path / "source", "hostb::inbox")

    assert (0, "") == clean(done)
    assert original == digests(site.inbox)


def test_source_and_destination_through_a_daemon_are_recognised(site, tmp_path):
    """The daemon's directory, reached as a path on the same machine, is not moved into itself."""
    original = plant(site.inbox, 6, small=5, large=0)
    (tmp_path / "link").symlink_to(site.inbox)

    for source in (site.inbox, tmp_path / "link", tmp_path, site.inbox / "d0"):
        (site.inbox / "d0").mkdir(exist_ok=True)
        done = site.realize("--quiet", source, "hostb::inbox")
        assert 2 == done.returncode
        assert "same directory" in done.stderr or "inside" in done.stderr

    assert original == digests(site.inbox)


def test_resume_sends_only_what_is_missing(site, tmp_path):
    """What a partial has is verified and not sent again; what is damaged in it is."""
    (tmp_path / "source").mkdir()
    content = os.urandom(24 << 20)
    (tmp_path / "source" / "big").write_bytes(content)
    damaged = bytearray(content[: 16 << 20])
    damaged[8 << 20] ^= 1
    leave_partial(site.inbox, "big", damaged)

    done = site.realize("--json", tmp_path / "source", "hostb::inbox")

    [finished] = [
        record for line in done.stdout.splitlines() if (record := json.loads(line)).get("event") == "finished"
    ]
    assert 0 == done.returncode
    assert 16 << 20 == finished["sent"]
    assert content == (site.inbox / "big").read_bytes()
    assert ["big"] == [path.name for path in site.inbox.iterdir()]


@pytest.mark.parametrize("policy", ["fail", "replace"])
def test_files_that_others_call_partials_are_files(site, tmp_path, policy):
    """Those at the destination stay as they are, and those at the source arrive, also in directories of such a name."""
    source = tmp_path / "source"
    for name in (".d.part/f", partial_at("", "d") / "f", partial_at("", "x"), ".y.part", "x", "y", "z"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(f"new {name}")
    partial = leave_partial(source, "still coming", b"12")
    expected = {path.relative_to(source) for path in source.rglob("*") if path.is_file() and path != partial}
    kept = [site.inbox / ".x.part", partial_at(site.inbox, "z")]
    for path in kept:
        path.write_bytes(b"precious")

    done = site.realize("--on-conflict", policy, source, "hostb::inbox")

    assert (0, 1) == (done.returncode, done.stderr.count("left: "))
    assert "partial file of Realize" in done.stderr
    assert [b"precious"] * 2 == [path.read_bytes() for path in kept]
    arrived = {path.relative_to(site.inbox) for path in site.inbox.rglob("*") if path.is_file()}
    assert expected == arrived - {path.relative_to(site.inbox) for path in kept}
    assert {f"new {path}" for path in expected} == {(site.inbox / path).read_text() for path in expected}
    assert [partial] == [path for path in source.rglob("*") if path.is_file()]


def test_two_commands_may_move_the_same_tree(site, tmp_path):
    """Both end well, and every file has arrived exactly once."""
    original = plant(tmp_path / "source", 7, small=200, large=6)

    both = [site.spawn("--quiet", tmp_path / "source", "hostb::inbox", stderr=subprocess.PIPE) for _ in range(2)]
    ended = [process.communicate(timeout=60)[1] for process in both]

    assert ([0, 0], [b"", b""]) == ([process.returncode for process in both], ended)
    assert original == digests(site.inbox)
    assert {} == digests(tmp_path / "source")


def test_rights_are_checked(tmp_path):
    """A drop box takes files, and neither shows nor gives nor removes any."""
    site = Site(tmp_path, rights=["write"])
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "x").write_text("x")
    site.start()
    try:
        put = site.realize("--quiet", tmp_path / "source", "hostb::inbox")
        listed = site.realize("ls", "hostb::inbox")
        taken = site.realize("copy", "--quiet", "hostb::inbox", tmp_path / "out")
        moved = site.realize("--quiet", "hostb::inbox", tmp_path / "out")

        assert (0, "") == clean(put)
        assert [1, 1, 1] == [listed.returncode, taken.returncode, moved.returncode]
        assert all("inbox" in done.stderr for done in (listed, taken, moved))
        assert "x" == (site.inbox / "x").read_text()
    finally:
        site.stop()


def test_moving_without_the_right_to_remove_is_refused_before_anything_is_sent(tmp_path):
    """A source that may not be removed is told so at once, not after everything was copied."""
    site = Site(tmp_path, rights=["read"])
    (site.inbox / "x").write_text("x")
    site.start()
    try:
        done = site.realize("--quiet", "hostb::inbox", tmp_path / "out")

        assert 1 == done.returncode
        assert "remove" in done.stderr
        assert {} == digests(tmp_path / "out")
    finally:
        site.stop()


def test_a_stranger_is_told_what_to_do(site, tmp_path):
    """A daemon that does not know our key, and one that is not the pinned one, get one clear sentence each."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "x").write_text("x")
    assert 0 == site.realize("keygen", tmp_path / "stranger.key").returncode

    unknown = site.realize("--key", tmp_path / "stranger.key", tmp_path / "source", "hostb::inbox")
    config = site.folder / "realize.toml"
    config.write_text(config.read_text().replace(site.keys["daemon"], site.keys["command"]))
    impostor = site.realize(tmp_path / "source", "hostb::inbox")

    assert [1, 1] == [unknown.returncode, impostor.returncode]
    assert "[peers." in unknown.stderr
    assert 2 == impostor.stderr.count("SHA256:")
    assert "Traceback" not in unknown.stderr + impostor.stderr
    assert (tmp_path / "source" / "x").exists()


def test_dry_run_touches_nothing(site, tmp_path):
    """Every file is named with what would be done to it, and nothing changes at either end."""
    original = plant(tmp_path / "source", 8, small=10, large=1)

    done = site.realize("--dry-run", tmp_path / "source", "hostb::inbox/new")

    assert 0 == done.returncode
    assert len(original) == len(done.stdout.splitlines())
    assert original == digests(tmp_path / "source")
    assert {} == digests(site.inbox)


def test_what_is_not_a_regular_file_is_left(site, tmp_path):
    """Symlinks and FIFOs stay, are reported, and are not failures."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "x").write_text("x")
    (source / "link").symlink_to("x")
    os.mkfifo(source / "fifo")

    done = site.realize("--no-progress", source, "hostb::inbox")

    assert 0 == done.returncode
    assert "link" in done.stderr
    assert "fifo" in done.stderr
    assert ["fifo", "link"] == sorted(os.listdir(source))
    assert ["x"] == os.listdir(site.inbox)


def test_two_sources_with_one_name(site, tmp_path):
    """The second file of a name stays at its source if it may not have another one; neither is lost."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text(name * 10)
        (tmp_path / name / name).write_text(name)

    ends = tmp_path / "a", tmp_path / "b", "hostb::inbox"
    done = site.realize("--quiet", "--on-conflict", "replace", *ends)

    assert 1 == done.returncode
    assert "x" in done.stderr
    assert {"x": "aaaaaaaaaa", "a": "a", "b": "b"} == {p.name: p.read_text() for p in site.inbox.iterdir()}
    assert {"x": "bbbbbbbbbb"} == {p.name: p.read_text() for p in (tmp_path / "b").iterdir()}


def test_interrupted_by_a_signal(site, tmp_path):
    """SIGTERM ends the run in order with exit code 20; the next run finishes the job."""
    original = plant(tmp_path / "source", 9, small=100, large=3, large_size=10 << 20)
    process = site.spawn("--quiet", "--throttle", "4M", tmp_path / "source", "hostb::inbox", stderr=subprocess.PIPE)
    while process.poll() is None and not any(site.inbox.iterdir()):
        time.sleep(0.002)

    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    again = site.realize("--quiet", tmp_path / "source", "hostb::inbox")

    assert 20 == process.returncode
    assert b"interrupted" in said
    assert (0, "") == clean(again)
    assert original == digests(site.inbox)
    assert {} == digests(tmp_path / "source")


def test_ls_shows_finals_and_partials(site):
    """`ls` tells a partial from a final file, with how much of it is there."""
    (site.inbox / "done").write_bytes(b"12345")
    leave_partial(site.inbox, "coming", b"123")

    done = site.realize("ls", "--json", "hostb::inbox")

    found = {record["path"]: (record["state"], record["size"]) for record in map(json.loads, done.stdout.splitlines())}
    assert 0 == done.returncode
    assert {"done": ("final", 5), "coming": ("partial", 3)} == found


def test_status_describes_the_daemon(site):
    """`status` tells version, uptime and connections, for people and for programs."""
    text = site.realize("status", "hostb")
    data = site.realize("status", "--json", "hostb")

    assert [0, 0] == [text.returncode, data.returncode]
    assert {"version", "uptime", "connections", "transfers"} <= set(json.loads(data.stdout))
    assert "uptime" in text.stdout


def test_status_tells_who_moves_what_how_fast_and_until_when(site, tmp_path):
    """One look has the file with its directory, rate and time left, and which limits are ours."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "big").write_bytes(os.urandom(8 << 20))  # which compression cannot make smaller
    command = site.spawn("--quiet", "--throttle", "100k", tmp_path / "source", "hostb::inbox/sub")
    reports = []

    def measured():
        reports.append(json.loads(site.realize("status", "--json", "hostb").stdout))
        return any(each["rate"] for each in reports[-1]["transfers"])

    wait_for(measured)
    command.kill()
    command.wait()

    [transfer] = reports[-1]["transfers"]
    [moving, asking] = reports[-1]["connections"]
    assert ("tester", "inbox", "sub/big", "receive") == tuple(
        transfer[key] for key in ("peer", "dir", "path", "direction")
    )
    assert transfer["connection"] == moving["id"]
    assert 0 < transfer["rate"] < 300_000
    assert transfer["left"] == pytest.approx((transfer["size"] - transfer["done"]) / transfer["rate"], rel=0.1)
    assert 0 < moving["receive_rate"] < 300_000
    assert {str(asking["id"])} == {
        row["name"] for row in reports[-1]["limits"] if row["scope"] == "connection" and row["yours"]
    }


def test_the_log_tells_who_put_what(site, tmp_path):
    """Each file committed or removed is an info record with peer, directory, path, size and digest."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "x").write_text("x")

    site.realize("--quiet", tmp_path / "source", "hostb::inbox")
    site.realize("--quiet", "hostb::inbox", tmp_path / "back")
    site.stop()

    records = site.records()
    [committed] = [record for record in records if record.get("event") == "file_committed"]
    [removed] = [record for record in records if record.get("event") == "file_removed"]
    assert ("tester", "inbox", "x", 1) == tuple(committed[field] for field in ("peer", "dir", "path", "size"))
    assert 64 == len(committed["digest"])
    assert ("tester", "inbox", "x") == tuple(removed[field] for field in ("peer", "dir", "path"))


def test_the_daemon_ends_cleanly_on_sigterm(site):
    """SIGTERM to an idle daemon is a clean stop, with no traceback in its log."""
    site.realize("status", "hostb")

    code = site.stop()

    assert code in {0, -signal.SIGTERM}
    assert "Traceback" not in site.log.read_text()


def test_reload_withdraws_rights(site, tmp_path):
    """SIGHUP shuts out a peer that was taken out of the configuration; a bad file changes nothing."""
    config = site.folder / "realized.toml"
    good = config.read_text()
    config.write_text("nonsense")
    site.daemon.send_signal(signal.SIGHUP)
    wait_for(lambda: "reload_failed" in site.log.read_text())
    assert 0 == site.realize("status", "hostb").returncode

    config.write_text(good.replace(site.keys["command"], site.keys["daemon"]))
    site.daemon.send_signal(signal.SIGHUP)
    wait_for(lambda: '"reloaded"' in site.log.read_text())
    refused = site.realize("status", "hostb")

    site.stop()
    assert 1 == refused.returncode
    events = [record.get("event") for record in site.records()]
    assert 1 == events.count("reload_failed")
    assert 1 == events.count("reloaded")


@pytest.mark.parametrize("lost", ["key", "peer", "right", "directory", "admin", "nothing"])
def test_a_reload_ends_connections_of_who_lost_something(site, tmp_path, lost):
    """In the middle of a file, and nobody else's."""
    config = site.folder / "realized.toml"
    good = config.read_text()
    changed = {
        "key": good.replace(site.keys["command"], site.keys["daemon"]),
        "peer": good[: good.index("[peers.tester]")],
        "right": good.replace('"read", ', ""),
        "directory": good.replace("dirs = { inbox = ", "dirs = { }  # "),
        "admin": good.replace("admin = true", "admin = false"),
        "nothing": good + "[peers.other]\nkey = " + json.dumps(site.keys["daemon"]) + "\n",
    }[lost]
    assert changed != good
    source = tmp_path / "source"
    source.mkdir()
    (source / "large").write_bytes(random.Random(1).randbytes(1 << 20))
    rate = "300k" if lost == "nothing" else "30k"
    command = site.spawn("--quiet", "--no-retry", "--throttle", rate, source, "hostb::inbox", stderr=subprocess.PIPE)
    wait_for(lambda: any(site.inbox.iterdir()))

    config.write_text(changed)
    site.daemon.send_signal(signal.SIGHUP)
    wait_for(lambda: any(record.get("event") == "reloaded" for record in site.records()))
    _, told = command.communicate(timeout=30)

    site.stop()
    withdrawn = [record.get("peer") for record in site.records() if record.get("event") == "rights_withdrawn"]
    assert (lost == "nothing") == (command.returncode == 0), told
    assert ([] if lost == "nothing" else ["tester"]) == withdrawn
    assert (lost == "nothing") == (not list(source.iterdir()))


def test_disk_full_at_the_destination(tmp_path, small_file_system):
    """Files that do not fit stay at the source and are failures; the others arrive; nothing is lost."""
    site = Site(tmp_path, inbox=small_file_system)
    source = tmp_path / "source"
    original = plant(source, 10, small=20, large=3, large_size=6 << 20)
    site.start()
    try:
        done = site.realize("--quiet", source, "hostb::inbox")

        here, there = digests(source), digests(site.inbox)
        assert 1 == done.returncode
        assert "No space left" in done.stderr
        assert [] == [path for path, digest in original.items() if digest not in (here.get(path), there.get(path))]
    finally:
        site.stop()


@pytest.fixture
def small_file_system(tmp_path):
    """A file system of 8 MiB."""
    where = tmp_path / "small"
    where.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(where)], check=True)
    yield where
    subprocess.run(["umount", "-l", str(where)], check=True)
    shutil.rmtree(where, ignore_errors=True)


@pytest.mark.parametrize("way", ["push", "pull", "local"])
def test_what_fits_one_by_one_arrives(tmp_path, small_file_system, way):
    """Four files of 3 MiB in flight together, and a partial of a killed run, on 8 MiB: two arrive, and all small ones.

    A file that is larger than the disk is in nobody's way.
    """
    source, destination = tmp_path / "source", small_file_system / "in"
    for folder in (source, destination):
        folder.mkdir()
    leave_partial(destination, "killed", b"k" * (5 << 20))
    for name, size in [("0", 9 << 20), *((f"large {number}", 3 << 20) for number in range(4))]:
        (source / name).write_bytes(random.Random(name).randbytes(size))
    for number in range(50):
        (source / f"small {number}").write_bytes(b"x" * 1000)
    original = digests(source)
    site = Site(tmp_path, inbox=source if way == "pull" else destination)
    site.start()
    try:
        done = site.realize(
            "hostb::inbox" if way == "pull" else source, "hostb::inbox" if way == "push" else destination
        )
    finally:
        site.stop()

    assert 1 == done.returncode
    here, there = digests(source), digests(destination)
    assert original == {**here, **there}
    assert b"0" in here
    assert 52 == len(there)
    assert 3 == len(here)


def test_old_partials_at_a_local_destination_go(tmp_path):
    """After a week in which they gained nothing, also without a daemon; young ones and others' files stay."""
    source, destination = tmp_path / "source", tmp_path / "there"
    original = plant(source, 1, small=3, large=1)
    (destination / "elsewhere").mkdir(parents=True)
    kept = leave_partial(destination, "young", b"123")
    gone = leave_partial(destination / "elsewhere", "old", b"123")
    foreign = partial_at(destination, "foreign")
    foreign.write_bytes(b"theirs")
    for path in (gone, foreign):
        os.utime(path, (path.stat().st_mtime - 8 * 86_400,) * 2)

    done = Site(tmp_path).realize("--verbose", "--json", source, destination)

    assert 0 == done.returncode
    assert not gone.exists()
    assert kept.exists()
    assert foreign.exists()
    [told] = [line for line in map(json.loads, done.stdout.splitlines()) if line["event"] == "partial_gone"]
    assert (3, True) == (told["size"], told["expired"])
    assert original.items() <= digests(destination).items()


def test_a_reserve_holds_from_a_reload_on(tmp_path):
    """Peers cannot fill what the configuration keeps, which a reload changes, also for who is connected."""
    site = Site(tmp_path)
    site.start()
    try:
        config = tmp_path / "realized.toml"
        config.write_text(config.read_text().replace("[peers.", 'reserve = "99.9999%"\n[peers.', 1))
        plant(tmp_path / "source", 1, small=3, large=1)
        site.daemon.send_signal(signal.SIGHUP)
        wait_for(lambda: any(record.get("event") == "reloaded" for record in site.records()))
        refused = site.realize(tmp_path / "source", "hostb::inbox")
        space = site.realize("check", "hostb::inbox", "--json")
        site.write_daemon_config()
        site.daemon.send_signal(signal.SIGHUP)
        wait_for(lambda: sum(record.get("event") == "reloaded" for record in site.records()) == 2)
        done = site.realize(tmp_path / "source", "hostb::inbox")
    finally:
        site.stop()

    assert 1 == refused.returncode
    assert "No space left on device" in refused.stderr
    assert '"step": "space", "result": "failed"' in space.stdout
    assert 0 == done.returncode


def test_another_version_costs_what_differs(site, tmp_path):
    """Real threads, real connections, both directions: of a large file only what the old version lacks travels."""
    old = random.Random(7).randbytes(20 << 20)
    new = old[: 3 << 20] + b"inserted" + old[3 << 20 : 11 << 20] + old[12 << 20 :] + b"more"
    here = tmp_path / "here"
    here.mkdir()
    sent = []
    for source, target, ends in (
        (here, site.inbox, (here, "hostb::inbox")),
        (site.inbox, here, ("hostb::inbox", here)),
    ):
        (source / "big").write_bytes(new)
        (target / "big").write_bytes(old)
        done = site.realize("--json", "--trust-source", "--on-conflict", "replace", *ends)
        assert (0, "") == (done.returncode, done.stderr)
        [finished] = [line for line in map(json.loads, done.stdout.splitlines()) if line["event"] == "finished"]
        sent.append(finished["sent"])
        assert "replaced" == finished["how"]
        assert new == (target / "big").read_bytes()
        assert not (source / "big").exists()

    assert max(sent) < 200_000
