"""Reloads that are asked for at the control socket: what has changed, what is told of it, and the command `reload`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred, succeed

from realize.cli.display.reload import reload_lines
from realize.config import Config, DirectoryConfig, PeerConfig
from realize.config.changes import changed_keys
from realize.daemon.reloading import MAX_PROBLEM_CHARS, Reloaded, ReloadResponder
from realize.errors import Busy, ProtocolError, UsageError
from realize.keys import generate_identity
from realize.runs.reports import parse_reload
from realize.wire.commands import Reload
from realize.wire.reports import MAX_REPORT_BYTES
from tests.loopback import Log
from tests.notify_socket import NotifySocket
from tests.processes import ENVIRONMENT, Site, run_program, wait_for

BEFORE = Config(
    key="/key",
    directories={"inbox": DirectoryConfig("/inbox"), "old": DirectoryConfig("/old")},
    peers={"nas": PeerConfig(generate_identity().public_key)},
)


def test_what_has_changed_is_told_by_the_keys_of_the_file():
    """Of directories, peers and moves each by itself; other tables as a whole."""
    after = evolve(
        BEFORE,
        directories={"inbox": DirectoryConfig("/other"), "new": DirectoryConfig("/new")},
        drain_s=1.0,
        throttle=evolve(BEFORE.throttle, service_bps=1000),
    )

    assert {} == changed_keys(BEFORE, BEFORE)
    assert {
        "dirs.inbox": "changed",
        "dirs.new": "added",
        "dirs.old": "removed",
        "drain": "changed",
        "throttle": "changed",
    } == changed_keys(BEFORE, after)


def test_what_is_told_can_be_read_back():
    """With what is missing filled in."""
    good = parse_reload(Reloaded(changes={"drain": "changed"}, restart_needed=("listen",)).as_text())
    bad = parse_reload(Reloaded(errors=["realized.toml: listen: no"]).as_text())

    assert [{"key": "drain", "change": "changed"}] == good["changes"]
    assert (["listen"], [], False) == (good["restart_needed"], good["errors"], good["truncated"])
    assert (["realized.toml: listen: no"], [], []) == (bad["errors"], bad["changes"], bad["restart_needed"])


@pytest.mark.parametrize(
    "reloaded",
    [
        Reloaded(changes={f"dirs.{number:0190}": "added" for number in range(1000)}),
        Reloaded(errors=["x" * 100_000] * 200),
    ],
)
def test_what_is_told_has_bounds(reloaded):
    """Whatever a configuration has in it; that something is missing is said."""
    text = reloaded.as_text()

    report = parse_reload(text)
    assert len(text) <= MAX_REPORT_BYTES
    assert report["truncated"]
    assert report["changes"] or MAX_PROBLEM_CHARS == len(report["errors"][0])


@pytest.mark.parametrize(
    "report", [{"changes": 1}, {"changes": [{"key": 1, "change": ""}]}, {"errors": "no"}, {"restart_needed": [None]}]
)
def test_nonsense_of_a_daemon_is_an_error(report):
    """It may be another program that listens there."""
    with pytest.raises(ProtocolError):
        parse_reload(json.dumps(report))


@pytest.mark.parametrize(
    ("reloaded", "expected"),
    [
        (Reloaded(), ["nothing has changed"]),
        (Reloaded(changes={"peers.a": "added", "throttle": "changed"}), ["peers.a: added", "throttle: changed"]),
        (Reloaded(restart_needed=["listen", "logs"]), ["nothing has changed", "needs a restart: listen, logs"]),
    ],
)
def test_the_lines_for_people(reloaded, expected):
    """A line for each change, and what still needs a restart."""
    assert expected == list(reload_lines(parse_reload(reloaded.as_text())))


def asked(reload, *, is_running=True):
    """What comes of asking a daemon with that function, and its log."""
    log = Log()
    responder = ReloadResponder("uid 0", reload, log, is_running=lambda: is_running)
    found = []
    responder.locateResponder(Reload.commandName)({}).addBoth(found.append)
    return found, log


def test_the_answer_comes_when_the_reload_is_done():
    """And the log has who asked for it."""
    reloading = Deferred()
    found, log = asked(lambda: reloading)
    before = list(found)
    reloading.callback(Reloaded(changes={"drain": "changed"}))

    assert ([], {"drain": "changed"}) == (
        before,
        {row["key"]: row["change"] for row in json.loads(found[0][b"report"])["changes"]},
    )
    assert ["uid 0"] == [each["peer"] for each in log.named("reload_requested")]


@pytest.mark.parametrize(
    ("reload", "is_running", "error"), [(None, True, UsageError), (lambda: succeed(Reloaded()), False, Busy)]
)
def test_a_daemon_that_cannot_reload_says_why(reload, is_running, error):
    """One in another program, which alone has its configuration; and one that stops."""
    found, log = asked(reload, is_running=is_running)

    assert error.wire_code.decode() == found[0].value.errorCode.decode()
    assert [] == log.named("reload_requested")


# A daemon under twistd, and the command.


@pytest.fixture
def runtime(monkeypatch):
    """A directory in which the daemon makes its socket, and in which the command looks for it."""
    folder = tempfile.mkdtemp(prefix="realize-")
    os.mkdir(f"{folder}/realize", 0o700)
    monkeypatch.setitem(ENVIRONMENT, "XDG_RUNTIME_DIR", folder)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def site(tmp_path, runtime):
    """A daemon that runs."""
    site = Site(tmp_path)
    site.start()
    yield site
    site.stop()


def reload(site, *options, home):
    """Run the command of a user that has neither configuration nor key."""
    environ = {**ENVIRONMENT, "HOME": str(home)}
    return run_program(
        site.command("reload", *options), env=environ, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_command_says_what_has_changed(site, tmp_path):
    """What is in force, and what needs a restart; each once."""
    same = reload(site, home=tmp_path)
    site.write_daemon_config('[throttle]\nservice = "1M"\n')
    config = tmp_path / "realized.toml"
    config.write_text('drain = "3s"\nmetrics = 0\n' + config.read_text())
    changed = reload(site, home=tmp_path)
    again = reload(site, "--json", home=tmp_path)

    assert (0, "nothing has changed\n", "") == (same.returncode, same.stdout, same.stderr)
    assert (0, "drain: changed\nthrottle: changed\nneeds a restart: metrics\n") == (changed.returncode, changed.stdout)
    report = json.loads(again.stdout)
    assert (0, [], ["metrics"]) == (again.returncode, report["changes"], report["restart_needed"])
    # Records are written a moment after the answer.
    wait_for(lambda: 3 == len([each for each in site.records() if each["event"] == "reload_requested"]))


@pytest.mark.parametrize("options", [(), ("--config", "realized.toml")])
def test_a_wrong_configuration_is_told_and_nothing_changes(site, tmp_path, options):
    """Each problem is a line, the exit code is that of a wrong configuration, and the log of the daemon has it as well.

    So it is, too, where the daemon's own configuration is to say where the socket is.
    """
    options = [str(tmp_path / each) if each.endswith(".toml") else each for each in options]
    site.write_daemon_config("nonsense = 1\n[throttle]\nservice = 'much'\n")

    failed = reload(site, *options, home=tmp_path)
    as_json = reload(site, *options, "--json", home=tmp_path)

    assert (2, "", 2) == (failed.returncode, failed.stdout, len(failed.stderr.splitlines()))
    assert "nonsense" in failed.stderr
    assert "throttle.service" in failed.stderr
    assert (2, 2) == (as_json.returncode, len(json.loads(as_json.stdout)["errors"]))
    wait_for(lambda: 2 == len([each for each in site.records() if each["event"] == "reload_failed"]))
    assert 0 == site.realize("status", "hostb").returncode


@pytest.mark.parametrize(("content", "expected"), [(None, "there is no such"), ("nonsense", "not a TOML file")])
def test_a_configuration_of_another_daemon_that_cannot_be_read(site, tmp_path, content, expected):
    """The daemon at the usual place has nothing to say of it: it is not told that nothing has changed."""
    other = tmp_path / "other.toml"
    if content is not None:
        other.write_text(content)

    wrong = reload(site, "--config", str(other), home=tmp_path)
    as_json = reload(site, "--config", str(other), "--json", home=tmp_path)

    assert (2, "", 2, "") == (wrong.returncode, wrong.stdout, as_json.returncode, as_json.stdout)
    assert wrong.stderr.startswith(f"realize: error: {other}: {expected}")


def test_where_no_daemon_runs_the_command_fails(tmp_path, runtime):
    """And says where it has looked; what is wrong with a configuration that was named is more to the point."""
    site = Site(tmp_path)
    nobody = reload(site, home=tmp_path)
    wrong = reload(site, "--config", tmp_path / "missing.toml", home=tmp_path)

    assert (1, True) == (nobody.returncode, "nobody listens at" in nobody.stderr)
    assert (2, True) == (wrong.returncode, "there is no such configuration file" in wrong.stderr)


def test_systemd_is_told_before_the_command_ends(tmp_path, runtime):
    """So the unit is not reloading any more when `systemctl reload` returns; signals reload as well."""
    site = Site(tmp_path)
    with NotifySocket(str(tmp_path / "notify")) as systemd:
        site.start(environ={"NOTIFY_SOCKET": systemd.address})
        systemd.wait_for("READY", "1")
        done = reload(site, home=tmp_path)
        systemd.wait_for("RELOADING", "1", seconds=0)
        systemd.wait_for("READY", "1", seconds=0)
        site.daemon.send_signal(signal.SIGHUP)
        systemd.wait_for("RELOADING", "1")
        wait_for(lambda: 2 == len([each for each in site.records() if each["event"] == "reloaded"]))
        site.stop()

    assert 0 == done.returncode
