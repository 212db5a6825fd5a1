"""`realize check`: what is found, what is advised, and that nothing is left behind."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import error as internet_errors
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from realize.cli.credentials import credentials_of
from realize.cli.logs import logger_of
from realize.cli.options import Access
from realize.config import Right
from realize.errors import Busy, ConnectionFailed, NoSpace, VersionMismatch, WrongPeer
from realize.keys import generate_identity, parse_public_key, write_identity
from realize.locations import RemoteLocation
from realize.runs import checking
from realize.runs.check_findings import (
    Finding,
    Result,
    durable,
    key_change,
    limits,
    not_recognised,
    not_welcome,
    rights,
    room,
    skew,
    their_keys,
    unreachable,
)
from realize.runs.checking import OF_THE_DIRECTORY, OF_THE_PEER, OF_THE_WAY, STEP_TIMEOUT_S, Checking
from realize.values import Space
from tests.processes import Site, start_daemon, wait_for
from tests.test_remote_store import Served

EVERY = [*OF_THE_WAY, *OF_THE_PEER, *OF_THE_DIRECTORY]
KEY = generate_identity().public_key


def steps(done):
    """How each step ended, from the output of --json; the summary apart."""
    *records, summary = map(json.loads, done.stdout.splitlines())
    assert "summary" == summary["event"]
    return {record["step"]: record for record in records}, summary


def results(found):
    """The results by step."""
    return {step: record["result"] for step, record in found.items()}


def everything(folder):
    """All paths below a folder, hidden ones too."""
    return sorted(os.path.join(where, name) for where, dirs, files in os.walk(folder) for name in dirs + files)


# What is advised.


@given(
    st.integers(-20 * 10**9, 20 * 10**9), st.integers(0, 3 * 10**9), st.integers(0, 3 * 10**9), st.integers(0, 10**7)
)
def test_the_difference_of_clocks_is_within_the_bound_that_is_said(offset_ns, there_ns, back_ns, tick_ns):
    """However long the question and the answer took, and however long ago the last tick of the other clock was."""
    before_ns = 10**18
    asked_ns = before_ns + there_ns
    found = skew(asked_ns + offset_ns - tick_ns, before_ns, asked_ns + back_ns).found

    number, _, bound = found.rpartition(" give or take ")
    middle_s = 0.0 if number == "as here," else float(number.split()[0]) * (1 if "ahead" in number else -1)
    assert abs(offset_ns / 1e9 - middle_s) <= float(bound.removesuffix(" s")) + 1e-9


@pytest.mark.parametrize(
    ("cause", "word"),
    [
        (internet_errors.ConnectionRefusedError(), "nothing listens there"),
        (internet_errors.TimeoutError(), "firewall"),
        (internet_errors.NoRouteError(), "there is no route"),
        (internet_errors.getConnectError((errno.EHOSTUNREACH, "x")), "there is no route"),
        (None, "address right"),
    ],
)
def test_refused_silent_and_unreachable_get_different_advice(cause, word):
    """What to look at depends on how the port did not answer."""
    error = ConnectionFailed("b:1 cannot be reached")
    error.__cause__ = cause

    finding = unreachable(error)

    assert ("port", Result.FAILED) == (finding.step, finding.result)
    assert word in finding.mend[0]


def test_another_key_is_shown_with_the_line_to_change():
    """Expected and seen key, the new line, and where it belongs; and that it may be an impostor."""
    error = WrongPeer(
        f'b:1 shows the key X instead of Y; if it was changed on purpose, say so here: key = "{KEY.base64}"'
    )

    finding = not_recognised(error, "nas", "/c.toml")

    assert "b:1 shows the key X instead of Y" == finding.found
    assert f'key = "{KEY.base64}"' in finding.mend[0]
    assert "(in [peers.nas] of /c.toml)" == finding.mend[1]
    assert "(with --peer-key)" == not_recognised(error, None, "/c.toml").mend[1]
    assert "another machine" in finding.mend[2]


def test_why_the_right_peer_does_not_let_us_in():
    """A key that is not known there, versions, and too many connections are told apart."""
    (unknown,) = not_welcome(WrongPeer("it does not know the key; paste"), KEY)
    known, versions = not_welcome(VersionMismatch("1.0 and 2.0"), KEY)
    (busy,) = not_welcome(Busy("64 connections"), KEY)

    assert ("known there", Result.FAILED) == (unknown.step, unknown.result)
    assert f'key = "{KEY.base64}"' in unknown.mend
    assert [Result.OK, Result.FAILED] == [known.result, versions.result]
    assert "versions" == versions.step
    assert [Result.FAILED, 1] == [busy.result, len(busy.mend)]


def test_rights_that_are_missing_are_named_with_where_they_belong():
    """Whoever was refused one learns it here; what another right includes is not missing."""
    some, none_missing = rights(["write"], "camera.1"), rights(["read", "write", "remove", "prune"], "camera")

    assert "write: we may move and copy to it" == some.found
    assert [
        '(for read, remove, prune: add it there to dirs of [peers."camera.1"], and run realize reload there)'
    ] == some.mend
    assert [] == none_missing.mend


NEW, OWN, OWN_NEW, HOST = (generate_identity().public_key for _ in range(4))
TABLE = "[peers.nas] of realize.toml"


def test_who_changes_no_key_has_nothing_to_do():
    """Whether the daemon tells its keys or is too old for that."""
    assert Result.OK is key_change(TABLE, [KEY], [KEY], KEY, [OWN], OWN).result
    assert Finding("key change", Result.OK, "neither end changes its key") == key_change(
        TABLE, [], [KEY], KEY, [OWN], OWN
    )


def test_a_new_key_of_the_daemon_is_a_warning_with_the_line_for_it():
    """By an option as well; it is the user who has to know that it was changed on purpose."""
    found = key_change(TABLE, [NEW, KEY], [KEY], KEY, [OWN], OWN)
    option = key_change(None, [NEW, KEY], [KEY], KEY, [OWN], OWN)
    full = key_change(TABLE, [NEW], [KEY, OWN, OWN_NEW, HOST], KEY, [OWN], OWN)

    assert (Result.WARNING, True) == (found.result, NEW.fingerprint in found.found)
    assert f'keys = ["{KEY.base64}", "{NEW.base64}"]' == found.mend[-1]
    assert TABLE in found.mend[1]
    assert f"--peer-key {NEW.base64}" == option.mend[-1]
    assert [KEY, OWN, OWN_NEW, NEW] == [parse_public_key(each) for each in json.loads(full.mend[-1][len("keys = ") :])]


def test_keys_of_the_daemon_that_are_needed_no_more_are_told():
    """With the line that keeps what came from it its own; a spare key, which comes after the newest, stays."""
    found = key_change(TABLE, [NEW, KEY], [KEY, NEW], KEY, [OWN], OWN)
    spared = key_change(TABLE, [NEW], [KEY, NEW, HOST], KEY, [OWN], OWN)
    unused = key_change(TABLE, [NEW], [NEW, HOST], NEW, [OWN], OWN)

    assert Result.OK is found.result
    assert [f'key = "{NEW.base64}"', f'origin = "{KEY.base64}"'] == list(found.mend[-2:])
    assert [f'keys = ["{NEW.base64}", "{HOST.base64}"]', f'origin = "{KEY.base64}"'] == list(spared.mend[-2:])
    assert "neither end changes its key" == unused.found


def test_a_daemon_that_knows_only_our_former_key_is_a_warning():
    """With the line that it needs; once it knows the new one, that is told too."""
    former = key_change(TABLE, [KEY], [KEY], KEY, [OWN_NEW, OWN], OWN)
    newer = key_change(TABLE, [KEY], [KEY], KEY, [OWN_NEW, OWN], OWN_NEW)
    both = key_change(TABLE, [NEW, KEY], [KEY], KEY, [OWN_NEW, OWN], OWN)

    assert (Result.WARNING, f'keys = ["{OWN.base64}", "{OWN_NEW.base64}"]') == (former.result, former.mend[-1])
    assert (Result.OK, 1) == (newer.result, len(newer.mend))
    assert (Result.WARNING, 5, 1) == (both.result, len(both.mend) - 1, both.found.count("; "))


@pytest.mark.parametrize("told", [None, "x", [1], [{}], [{"key": 1}], [{"key": "x"}], [{"key": None}], [[]]])
def test_keys_that_are_none_are_not_told(told):
    """A daemon may send anything."""
    assert [] == their_keys({"keys": told})


def test_keys_are_told_newest_first():
    """As many as there may be."""
    assert [NEW, KEY] == their_keys({"keys": [{"key": NEW.base64}, {"key": KEY.base64, "more": 1}]})
    assert 4 == len(their_keys({"keys": [{"key": KEY.base64}] * 9}))


def test_a_skew_counts_beyond_what_the_round_trip_hides():
    """A slow answer is no wrong clock."""
    second = 10**9

    assert Result.OK is skew(100 * second, 98 * second, 104 * second).result
    assert Result.WARNING is skew(100 * second, 90 * second, 91 * second).result
    assert "9.505 s ahead" in skew(100 * second, 90 * second, 91 * second).found
    assert "behind" in skew(80 * second, 90 * second, 91 * second).found
    assert Result.OK is skew(100 * second, 80 * second, 110 * second).result


@pytest.mark.parametrize(
    ("space", "result"),
    [
        (Space(50, 100), Result.OK),
        (Space(50, 100, 5), Result.OK),
        (Space(0, 100, 5), Result.FAILED),
        (Space(50, 100, 0), Result.FAILED),
        (Space(9, 1000, 5), Result.WARNING),
    ],
)
def test_space_and_inodes_can_both_run_out(space, result):
    """Nearly full is a warning, full a failure."""
    assert result is room(space).result


def test_no_limit_is_said_as_such():
    """Nobody is told "at most unlimited"."""
    assert "the daemon sends at most 512 KiB/s, and lets us send without a limit" == limits(512 << 10, None).found


def test_a_slow_disk_is_a_warning():
    """It works all the same."""
    assert [Result.OK, Result.WARNING] == [durable(10**7).result, durable(3 * 10**9).result]


def test_a_finding_is_a_line_with_its_advice_below():
    """For people, in columns."""
    finding = Finding("port", Result.FAILED, "refused", ["look", "there"])

    assert ["FAIL  port           refused", " " * 21 + "look", " " * 21 + "there"] == list(finding.lines())


# The directory, over a connection in memory.


def examined(*, rights=frozenset(Right), prepare=lambda memory: None, **options):
    """What a check of the directory of such a peer finds, by step."""
    served = Served(Clock(), {"inbox": rights}, **options).introduced()
    prepare(served.memory)
    found = []
    work = checking.Checking(served.clock, found.append, logger_of).examine_directory(
        served.client, RemoteLocation("nas", "nas", 9771, "inbox", b"")
    )
    ended = []
    Deferred.fromCoroutine(work).addErrback(lambda failure: failure.trap(checking._StepFailed)).addBoth(ended.append)
    served.flush()
    served.clock.advance(STEP_TIMEOUT_S)
    served.flush()
    assert [None] == [each if each is None else None for each in ended]
    served.client_wire.cut()
    return {finding.step: finding for finding in found}


def test_what_may_not_be_done_is_not_tried():
    """Without the right to write there is no trial, and that is no failure."""
    found = examined(rights=frozenset({Right.READ}))

    assert Result.SKIPPED is found["durable write"].result
    assert "copy from it" in found["rights"].found
    assert "move" not in found["rights"].found


def test_who_may_create_only_is_told_so():
    """The trial of a durable write is made, and the sentence says that names must be new."""
    found = examined(rights=frozenset({Right.CREATE}))

    assert Result.OK is found["durable write"].result
    assert "create: we may move and copy to it under new names" == found["rights"].found


def test_a_directory_that_cannot_be_written_to_fails_only_that_step():
    """The reason is that of the other machine."""

    def fill(memory):
        memory.fail_next["try_write", b""] = NoSpace(".: No space left on device")

    found = examined(prepare=fill)

    assert (Result.FAILED, Result.OK) == (found["durable write"].result, found["space"].result)
    assert "No space left" in found["durable write"].found


def test_a_step_that_hangs_ends():
    """After ten seconds it has failed, and the next one is tried."""

    def hang(memory):
        memory.try_write = Deferred

    found = examined(prepare=hang)

    assert Result.FAILED is found["durable write"].result
    assert "no answer within 10 seconds" in found["durable write"].found


def test_a_name_server_that_hangs_ends_the_check(monkeypatch, tmp_path):
    """What needs an address is skipped, and nobody waits for the name server."""
    write_identity(str(tmp_path / "k"), generate_identity())
    (tmp_path / "c").write_text(f'key = "k"\n[peers.nas]\naddress = "nas.invalid"\nkey = "{KEY.base64}"\n')
    monkeypatch.setattr(checking, "_addresses", lambda *_: Deferred())
    found, clock = [], Clock()

    done = Deferred.fromCoroutine(
        Checking(clock, found.append, logger_of).run("nas::inbox", lambda: credentials_of(Access(str(tmp_path / "c"))))
    )
    clock.advance(STEP_TIMEOUT_S)

    assert done.called
    assert EVERY == [finding.step for finding in found]
    assert ["ok", "ok", "FAIL", *["skip"] * (len(EVERY) - 3)] == [finding.result.value for finding in found]


# The command, against a real daemon.


@contextmanager
def running(folder, **options):
    """A site whose daemon runs."""
    site = Site(folder, **options)
    site.start()
    try:
        yield site
    finally:
        site.stop()


def test_against_a_daemon(tmp_path):
    """All is well; then an unknown directory, another pin, a key that is not known: each fails where it should."""
    with running(tmp_path) as site:
        (site.inbox / "file").write_text("content")
        before = everything(site.inbox)

        plain = site.realize("check", "--log-file", tmp_path / "check.log", "hostb::inbox")
        well, summary = steps(site.realize("check", "--json", "hostb::inbox/new"))
        peer_only, _ = steps(site.realize("check", "--json", "hostb"))
        nowhere = site.realize("check", "--json", "hostb::elsewhere")
        config = tmp_path / "realize.toml"
        wrong = config.read_text().replace(site.keys["daemon"], KEY.base64)
        (tmp_path / "wrong.toml").write_text(wrong)
        impostor = site.realize("check", "--json", "--config", tmp_path / "wrong.toml", "hostb::inbox")
        write_identity(str(tmp_path / "other.key"), generate_identity())
        stranger = site.realize("check", "--json", "--key", tmp_path / "other.key", "hostb::inbox")

        assert (0, "") == (plain.returncode, plain.stderr)
        assert ["connected"] == [
            json.loads(line)["event"] for line in (tmp_path / "check.log").read_text().splitlines()
        ]
        assert EVERY == [
            re.match(r"ok    (.{13})  \S", line)[1].rstrip() for line in plain.stdout.splitlines() if line[0] != " "
        ]
        assert dict.fromkeys(EVERY, "ok") == results(well)
        assert (0, len(EVERY)) == (summary["exit_code"], summary["ok"])
        assert "would be made" in well["directory"]["found"]
        assert [] == well["rights"]["mend"]
        assert {"skipped"} == {peer_only[step]["result"] for step in OF_THE_DIRECTORY}
        found, summary = steps(nowhere)
        assert (3, 3, "failed") == (nowhere.returncode, summary["exit_code"], found["directory"]["result"])
        assert 'dirs = { elsewhere = ["write"] }' in found["directory"]["mend"]
        found, _ = steps(impostor)
        assert (3, "ok", "failed") == (impostor.returncode, found["port"]["result"], found["their key"]["result"])
        assert "SHA256:" in found["their key"]["found"]
        assert any(site.keys["daemon"] in line for line in found["their key"]["mend"])
        found, _ = steps(stranger)
        assert (3, "ok") == (stranger.returncode, found["their key"]["result"])
        assert "failed" == found["known there"]["result"]
        assert "[peers." in "\n".join(found["known there"]["mend"])
        assert before == everything(site.inbox)


def test_both_ends_change_their_keys(tmp_path):
    """In real processes: what each check says is done at one end, while the other one goes on, and a copy is made."""
    with running(tmp_path, rights=["write"]) as site:
        old = dict(site.keys)
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "f").write_bytes(b"x" * 100_000)
        new = {}
        for name in old:
            identity = generate_identity()
            write_identity(str(tmp_path / f"new {name}.key"), identity)
            new[name] = identity.public_key.base64

        def change(file, *changes):
            path = tmp_path / file
            text = path.read_text()
            for before, after in changes:
                assert before in text
                text = text.replace(before, after)
            path.write_text(text)

        def seen():
            copied = site.realize("copy", "--json", tmp_path / "out", "hostb::inbox")
            [sent] = [
                each["sent"] for each in map(json.loads, copied.stdout.splitlines()) if each["event"] == "finished"
            ]
            found, _ = steps(site.realize("check", "--json", "hostb"))
            return sent, found["key change"]["result"], found["key change"]["mend"]

        first = seen()
        own = 'key = "new command.key"\nformer_keys = ["command.key"]'
        change("realize.toml", ('key = "command.key"', own))
        change("realized.toml", ('key = "daemon.key"', 'key = "new daemon.key"\nformer_keys = ["daemon.key"]'))
        site.stop()
        site.daemon = start_daemon(tmp_path / "realized.toml", site.log)
        wait_for(lambda: b'"event":"listening"' in site.log.read_bytes().partition(b'"event":"stopped"')[2])
        both = seen()
        [of_daemon, of_command] = [line for line in both[2] if line.startswith("keys = ")]
        change("realize.toml", (f'key = "{old["daemon"]}"', of_daemon))
        change("realized.toml", (f'key = "{old["command"]}"', of_command))
        site.daemon.send_signal(signal.SIGHUP)
        wait_for(lambda: b'"event":"reloaded"' in site.log.read_bytes())
        known = seen()
        change("realize.toml", (of_daemon, "\n".join(known[2][2:4])), (own, 'key = "new command.key"'))
        last = seen()
        records = [each for each in site.records() if each["event"] == "peer_accepted"]

        assert (100_000, "ok", []) == first
        assert (0, "warning") == both[:2]
        assert (0, "ok") == known[:2]
        assert f'key = "{new["daemon"]}"' == known[2][2]
        assert (0, "ok", []) == last
        fingerprints = [parse_public_key(each).fingerprint for each in (old["command"], new["command"])]
        assert fingerprints == list(dict.fromkeys(each["fingerprint"] for each in records))


def test_nobody_listens(tmp_path):
    """A port that refuses, and one that accepts and says nothing of TLS, are told apart; no key is told as well."""
    site = Site(tmp_path)
    site.write_command_config()
    refused = site.realize("check", "--json", "hostb::inbox")
    (tmp_path / "command.key").chmod(0o644)
    readable = site.realize("check", "--json", "hostb::inbox")

    found, _ = steps(refused)
    assert (3, "failed", "skipped") == (refused.returncode, found["port"]["result"], found["their key"]["result"])
    assert "nothing listens there" in found["port"]["mend"][0]
    found, _ = steps(readable)
    assert "failed" == found["own key"]["result"]
    assert "chmod 600" in found["own key"]["mend"][0]


def test_what_is_no_target_is_a_usage_error(tmp_path):
    """A local path cannot be checked, and that is not a failed check."""
    site = Site(tmp_path)
    site.port = 9
    site.write_command_config()

    done = site.realize("check", "./inbox")

    assert 2 == done.returncode
    assert "./inbox" in done.stderr
