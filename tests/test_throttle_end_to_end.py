"""Limits as their users set them: real processes, real sockets, and margins wide enough for a busy machine."""

import json
import os
import signal
import subprocess
import time
from itertools import pairwise

import pytest

from tests.leftovers import leave_partial
from tests.processes import BUSY_S, ENVIRONMENT, Site, digests, wait_for

MIB = 1 << 20


@pytest.fixture
def site(tmp_path):
    """A daemon, and a source with one file of 6 MiB."""
    site = Site(tmp_path)
    site.start()
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "big").write_bytes(os.urandom(6 * MIB))
    yield site
    site.stop()


def timed(site, *arguments):
    """Run the command; how long it took."""
    began = time.monotonic()
    done = site.realize("--quiet", *arguments)

    assert (0, "") == (done.returncode, done.stderr)
    return time.monotonic() - began


def arrived(folder):
    """How many bytes of the big file are in a folder."""
    return sum(path.stat().st_size for path in folder.glob("*big*")) if folder.exists() else 0


@pytest.mark.parametrize("option", ["--throttle", "--throttle-up"])
def test_what_is_sent_keeps_to_the_limit(site, tmp_path, option):
    """6 MiB at 2 MiB/s take about three seconds."""
    took = timed(site, option, "2M", tmp_path / "source", "hostb::inbox")

    assert 2.7 < took < 3 + BUSY_S
    assert 1 == len(digests(site.inbox))


@pytest.mark.parametrize("option", ["--throttle", "--throttle-down"])
def test_what_is_received_keeps_to_the_limit(site, tmp_path, option):
    """The other end is told how fast it may send."""
    os.rename(tmp_path / "source" / "big", site.inbox / "big")

    took = timed(site, option, "2M", "hostb::inbox", tmp_path / "target")

    assert 2.7 < took < 3 + BUSY_S


@pytest.mark.parametrize("direction", ["push", "pull"])
@pytest.mark.parametrize("small", [False, True])
def test_progress_is_told_in_bytes_however_slow_the_line_is(site, tmp_path, direction, small):
    """It grows by little all the time, and what travelled is in the summary of a run that was stopped."""
    folder = site.inbox if direction == "pull" else tmp_path / "source"
    os.rename(tmp_path / "source" / "big", folder / "big")
    if small:
        os.truncate(folder / "big", 60_000)
    ends = ("hostb::inbox", tmp_path / "target") if direction == "pull" else (folder, "hostb::inbox")
    sent = []
    with site.spawn("--json", "--throttle", "10k", *ends, stdout=subprocess.PIPE, text=True) as command:
        while len(set(sent)) < 5:
            record = json.loads(command.stdout.readline())
            if record["event"] == "progress":
                sent.append(record["sent_bytes"])
        command.send_signal(signal.SIGINT)
        *_, summary = map(json.loads, command.stdout)

    assert 20 == command.wait(20)
    assert sent == sorted(sent)
    assert all(later - earlier < 40_000 for earlier, later in pairwise([0, *sent]))
    assert sent[-1] <= summary["sent_bytes"] < sent[-1] + 65_536


def test_the_other_direction_is_not_limited(site, tmp_path):
    """--throttle-down does not slow what is sent."""
    assert timed(site, "--throttle-down", "64k", tmp_path / "source", "hostb::inbox") < BUSY_S


def test_what_a_resume_skips_is_not_charged(site, tmp_path):
    """All but 256 KiB of six megabytes is there: at 256 KiB/s the rest takes a second, not 24."""
    content = (tmp_path / "source" / "big").read_bytes()
    leave_partial(site.inbox, "big", content[: -(256 << 10)])

    assert timed(site, "--throttle", "256k", tmp_path / "source", "hostb::inbox") < 1 + BUSY_S


def test_a_limit_of_one_kibibyte_works(site, tmp_path):
    """No time limit is hit, however slow it is."""
    (tmp_path / "source" / "big").write_bytes(os.urandom(3000))

    assert 2 < timed(site, "--throttle", "1k", tmp_path / "source", "hostb::inbox") < 15


def test_a_peer_is_limited_and_freed_while_it_sends(site, tmp_path):
    """The daemon asks its client, which obeys in the middle of a file."""
    command = site.spawn("--quiet", "--throttle", "300k", tmp_path / "source", "hostb::inbox")
    wait_for(lambda: arrived(site.inbox) > 0)
    limited = site.realize("throttle", "hostb", "8k", "--scope", "peer:tester", "--direction", "receive")
    before = arrived(site.inbox)
    time.sleep(1.5)
    slow = arrived(site.inbox) - before
    freed = site.realize("throttle", "hostb", "unlimited", "--scope", "peer:tester", "--direction", "receive")
    command.send_signal(signal.SIGTERM)

    assert (0, 0, 20) == (limited.returncode, freed.returncode, command.wait(20))
    assert slow < 200_000


@pytest.mark.parametrize("direction", ["push", "pull"])
@pytest.mark.parametrize("admin", ["true", "false"])
def test_the_limits_of_a_command_that_runs_can_be_raised(site, tmp_path, direction, admin):
    """By an admin, or by the same key: at 1 KiB/s six megabytes would take more than an hour."""
    config = site.folder / "realized.toml"
    config.write_text(config.read_text().replace("admin = true", f"admin = {admin}"))
    site.daemon.send_signal(signal.SIGHUP)
    wait_for(lambda: any(record.get("event") == "reloaded" for record in site.records()))
    folder = site.inbox if direction == "pull" else tmp_path / "source"
    os.rename(tmp_path / "source" / "big", folder / "big")
    ends = ("hostb::inbox", tmp_path / "target") if direction == "pull" else (folder, "hostb::inbox")
    command = site.spawn("--quiet", "--throttle", "1k", *ends)
    wait_for(lambda: arrived(tmp_path / "target" if direction == "pull" else site.inbox) > 0)
    raised = site.realize("throttle", "hostb", "1G", "--scope", "connection:1", "--direction", "both", "--json")

    assert (0, "") == (raised.returncode, raised.stderr)
    assert {("send", 1 << 30), ("receive", 1 << 30)} == {
        (row["direction"], row["limit"]) for row in json.loads(raised.stdout) if row["name"] == "1"
    }
    assert 0 == command.wait(60)


def test_a_reload_frees_a_transfer_that_waits(site, tmp_path):
    """A limit of the configuration is lifted by SIGHUP in the middle of a file."""
    os.rename(tmp_path / "source" / "big", site.inbox / "big")
    site.write_daemon_config('[throttle]\nservice = "100k"\n')
    site.daemon.send_signal(signal.SIGHUP)
    wait_for(lambda: any(record.get("event") == "reloaded" for record in site.records()))
    began = time.monotonic()
    command = site.spawn("--quiet", "hostb::inbox", tmp_path / "target")
    wait_for(lambda: arrived(tmp_path / "target") > 0)
    site.write_daemon_config()
    site.daemon.send_signal(signal.SIGHUP)

    assert 0 == command.wait(30)
    assert time.monotonic() - began < 30


def test_the_table_of_limits(site):
    """`throttle PEER` shows each limit with its present rate; a limit for a time shows how long it lasts."""
    changed = site.realize("throttle", "hostb", "4M", "--for", "2h", "--json")
    shown = site.realize("throttle", "hostb")
    site.stop()

    [service] = [row for row in json.loads(changed.stdout) if row["scope"] == "service"]
    assert (4 * MIB, True) == (service["limit"], 7100 < service["lasts"] <= 7200)
    assert "4 MiB/s" in shown.stdout
    assert [("tester", "service", None, 4 * MIB)] == [
        (record["peer"], record["scope"], record["old"], record["new"])
        for record in site.records()
        if record.get("event") == "throttle_changed"
    ]


def test_without_admin_the_service_is_out_of_reach(site):
    """The refusal says what is missing, and is logged."""
    config = site.folder / "realized.toml"
    config.write_text(config.read_text().replace("admin = true", "admin = false"))
    site.stop()
    site.start()
    config.write_text(config.read_text().replace("admin = true", "admin = false"))
    site.daemon.send_signal(signal.SIGHUP)
    wait_for(lambda: any(record.get("event") == "reloaded" for record in site.records()))

    refused = site.realize("throttle", "hostb", "4M")
    site.stop()

    assert 1 == refused.returncode
    assert "admin = true" in refused.stderr
    assert "throttle_refused" in {record.get("event") for record in site.records()}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--throttle", "1M", "--throttle-up", "2M", "a", "hostb::inbox"], "--throttle limits both directions"),
        (["--throttle", "0", "a", "hostb::inbox"], "is not a rate"),
        (["--throttle-down", "fast", "a", "hostb::inbox"], "is not a rate"),
        (["--throttle", "1M", "a", "b"], "are both on this machine"),
        (["throttle", "hostb", "20T"], "at most 10 TiB/s"),
        (["throttle", "hostb", "1M", "--for", "0s"], "--for"),
        (["throttle", "hostb", "--for", "2h"], "--for needs a RATE"),
        (["throttle", "hostb", "1M", "--scope", "galaxy"], "is not one of service, peer:NAME, connection:ID"),
    ],
)
def test_nonsense_is_a_usage_error(tmp_path, arguments, said):
    """One sentence, and exit code 2."""
    site = Site(tmp_path)
    site.port = 9
    site.write_command_config()

    done = site.realize(*arguments)

    assert 2 == done.returncode
    assert said in done.stderr


def test_verbose_says_which_limits_hold(site, tmp_path):
    """At the start of a verbose run both ends' limits are shown."""
    done = site.realize(
        "-v", "--no-progress", "--throttle-up", "50M", "--throttle-down", "40M", tmp_path / "source", "hostb::inbox"
    )

    assert 0 == done.returncode
    assert "send 50 MiB/s, receive 40 MiB/s" in done.stderr


def test_unlimited_is_a_limit_too(site, tmp_path):
    """`--throttle unlimited` is accepted and limits nothing."""
    assert timed(site, "--throttle", "unlimited", tmp_path / "source", "hostb::inbox") < BUSY_S


def test_status_is_prompt_while_a_transfer_is_slow(site, tmp_path):
    """A limit of 64 KiB/s on the peer does not make its other questions wait behind the transfer."""
    os.rename(tmp_path / "source" / "big", site.inbox / "big")
    assert 0 == site.realize("throttle", "hostb", "64k", "--scope", "peer:tester").returncode
    command = site.spawn("--quiet", "hostb::inbox", tmp_path / "target", stderr=subprocess.DEVNULL)
    wait_for(lambda: arrived(tmp_path / "target") > 0)
    began = time.monotonic()
    done = site.realize("status", "hostb")
    took = time.monotonic() - began
    command.kill()
    command.wait()

    assert 0 == done.returncode
    assert took < BUSY_S


def soon_eight(monkeypatch, seconds):
    """Let clocks of processes show 08:00 in so many seconds; the moment."""
    eight = time.time() + seconds
    # POSIX counts a zone westwards, to the second.
    west = int(eight - 8 * 3600) % 86_400
    monkeypatch.setitem(ENVIRONMENT, "TZ", f"TST{west // 3600}:{west // 60 % 60:02}:{west % 60:02}")
    return int(eight)


def test_a_command_obeys_its_timetable_in_the_middle_of_a_file(site, tmp_path, monkeypatch):
    """It sends slowly until the time comes, which would go on for a minute and a half; the daemon is told."""
    eight = soon_eight(monkeypatch, 8)
    command = site.spawn("--quiet", "--throttle", "00:00,64k 08:00,unlimited", tmp_path / "source", "hostb::inbox")
    wait_for(lambda: arrived(site.inbox) > 0)
    early = time.time()
    limits = json.loads(site.realize("throttle", "hostb", "--json").stdout)

    assert early < eight
    assert 64 << 10 in [row["limit"] for row in limits if row["scope"] == "connection"]
    assert (0, True) == (command.wait(30), time.time() >= eight)
    site.stop()
    told = [record for record in site.records() if record["event"] == "throttle_changed" and record["old"] == 64 << 10]
    assert {("send", None), ("receive", None)} == {(record["direction"], record["new"]) for record in told}


def test_a_daemon_obeys_its_timetable_while_it_sends(site, tmp_path, monkeypatch):
    """It says beforehand what comes and when, and logs it when it does; the run ends soon after."""
    os.rename(tmp_path / "source" / "big", site.inbox / "big")
    site.stop()
    site.write_daemon_config('[throttle]\nservice = "00:00,64k 08:00,unlimited"\n')
    eight = soon_eight(monkeypatch, 12)
    site.start()
    command = site.spawn("--quiet", "hostb::inbox", tmp_path / "target")
    (service,) = [
        row
        for row in json.loads(site.realize("throttle", "hostb", "--json").stdout)
        if (row["scope"], row["direction"]) == ("service", "send")
    ]

    assert (64 << 10, None, "00:00,64k 08:00,unlimited") == tuple(
        service[name] for name in ("limit", "changes_to", "timetable")
    )
    assert 0 < service["changes_in"] < 12
    assert (0, True) == (command.wait(30), time.time() >= eight)
    # A log is written by a thread of its own.
    wait_for(lambda: [record for record in site.records() if record["event"] == "throttle_changed"])
    changes = [record for record in site.records() if record["event"] == "throttle_changed"]
    assert [("timetable", "service", 64 << 10, None)] == [
        tuple(record[name] for name in ("cause", "scope", "old", "new")) for record in changes
    ]
