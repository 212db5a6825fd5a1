"""The command `moves`, and `status` and `throttle` without a peer: their words, what they show, and real daemons."""

import json
import os
import shutil
import signal
import tempfile

import click
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from realize.cli.commands.moves import parsed
from realize.cli.commands.throttle import throttle
from realize.cli.display.moves import age, details, listing
from realize.cli.main import realize
from realize.errors import ProtocolError, UsageError
from realize.moves.status import FileUnderWay, KnownBacklog, LimitChange, MoveStatus, Phase, RunNow, RunResult, Totals
from realize.runs.asking import ask_moves
from realize.wire.connection import Greeting
from tests.loopback import Pair
from tests.processes import ENVIRONMENT, Site, run_program, wait_for

NOW = 1_700_000_000.0
CAMERA = MoveStatus(
    name="camera",
    sources=["/store/camera"],
    destination="nas::inbox/cam1",
    when="settled",
    phase=Phase.RUNNING,
    watching={"/store/camera": "events"},
    backlog=KnownBacklog(files=118, size=1_288_490_189, oldest=NOW - 720, at_least=True),
    running=RunNow(
        run="r2",
        began=NOW - 65,
        moved_files=10,
        moved_bytes=20 << 20,
        failed_files=1,
        rate_bps=4_299_161.6,
        in_flight=[FileUnderWay(path="day1/é\\xff.jpg", size=20 << 20, done=5 << 20)],
    ),
    last_run=RunResult(run="r1", began=NOW - 800, ended=NOW - 780, moved_files=1, failed_files=2, code="failed"),
    last_success=NOW - 780,
    failed_files=2,
    file_error="a: is a directory",
    up_bps=512 << 10,
    up_change=LimitChange(at=NOW + 3 * 3600, bps=None),
    totals=Totals(moved_files=11, moved_bytes=21 << 20, runs=2, failures={"conflict": 2}),
)
NIGHT = MoveStatus(
    name="night",
    sources=["nas::outbox"],
    destination="/store/night",
    when="02:30",
    phase=Phase.FAILING,
    next_run=NOW + 4 * 3600,
    failing_since=NOW - 86_400,
    error="nas:9771 cannot be reached",
)


def report(*moves, **more):
    """What a daemon says of these."""
    return {"now": NOW, "moves": [each.as_row() for each in moves], "truncated": False, **more}


def test_the_list_has_a_line_for_each_move_and_one_for_each_trouble():
    """Durations in their largest unit; what is unknown is a dash."""
    assert [
        "move    state    waiting         oldest  rate       last  next",
        "camera  running  118+ (1.2 GiB)  12m     4.1 MiB/s  13m   -",
        "night   failing  0               -       -          -     4h",
        "",
        "camera: 2 files failed, the last one: a: is a directory",
        "night: failing for 1d: nas:9771 cannot be reached",
    ] == list(listing(report(CAMERA, NIGHT)))


def test_the_list_says_how_many_of_the_files_that_failed_are_busy():
    """They need nobody."""
    busy = evolve(CAMERA, failed_files=3, busy_files=1)

    assert "camera: 3 files failed (1 is busy), the last one: a: is a directory" in list(listing(report(busy)))
    assert "failed        3 files (1 is busy), the last one: a: is a directory" in list(details(report(busy)))


def test_the_list_names_sources_that_are_not_watched_well():
    """One that is not there moves nothing, and looks idle otherwise."""
    away = evolve(CAMERA, watching={"/a": "events", "/b": "absent", "/c": "limited"})
    lines = list(listing({"now": NOW, "moves": [away.as_row()]}))

    assert [
        "camera: /b is not there, or does not answer",
        "camera: /c is searched only once a minute: the kernel refuses more inotify watches (the log names the sysctl)",
    ] == [line for line in lines if ": /" in line]


def test_the_list_says_if_there_is_nothing_and_if_there_is_more():
    """Nobody takes a part for the whole."""
    assert ["this daemon has no standing moves"] == list(listing(report()))
    assert "there are more moves" in [*listing(report(CAMERA, truncated=True))][-1]


@given(
    files=st.integers(0, 10**6 - 1),
    size=st.integers(0, 1 << 60),
    rate=st.floats(0, 1e14),
    times=st.tuples(*[st.floats(0, 900 * 86_400)] * 3),
)
def test_the_list_fits_80_columns(files, size, rate, times):
    """With a name of 16 characters, fewer than a million files, less than 100 TiB/s and 1,000 days."""
    oldest, ended, then = times
    row = CAMERA.as_row() | {"name": "x" * 16, "next_run": NOW + then}
    row["backlog"] = {"files": files, "size": size, "oldest": NOW - oldest, "at_least": False}
    row["running"]["rate_bps"], row["last_run"]["ended"] = rate, NOW - ended

    assert max(map(len, [*listing({"now": NOW, "moves": [row]})][:2])) <= 80


def test_the_details_have_all_of_a_move(monkeypatch):
    """Names of files are as the daemon has escaped them."""
    monkeypatch.setenv("TZ", "UTC")
    lines = [*details(report(CAMERA))]

    assert "from          /store/camera (events)" in lines
    assert "state         running" in lines
    assert "waiting       118+ (1.2 GiB); the oldest for 12m" in lines
    assert "this run      for 1m: moved 10 (20 MiB), 1 file failed, 4.1 MiB/s" in lines
    assert "              5 MiB of 20 MiB of day1/é\\xff.jpg" in lines
    [last] = [line for line in lines if line.startswith("last run")]
    assert last.endswith("(13m ago), failed: moved 1, 2 files failed")
    assert "failed        2 files, the last one: a: is a directory" in lines
    assert "limits        send 512 KiB/s, receive unlimited" in lines
    [change] = [line for line in lines if line.startswith("              send unlimited from ")]
    assert change.endswith("(in 3h)")
    assert "since start   2 runs, moved 11 (21 MiB); errors: conflict 2" in lines


def test_the_details_of_a_move_that_fails_say_since_when_and_when_it_goes_on():
    """And with what."""
    lines = [*details(report(NIGHT))]

    state = lines.index("state         failing for 1d")
    assert "error         nas:9771 cannot be reached" == lines[state + 1]
    assert [True] == [line.endswith("(in 4h)") for line in lines if line.startswith("next run")]
    assert "state         running, failing for 1d" in [*details(report(evolve(NIGHT, phase=Phase.RUNNING)))]


def test_the_details_have_an_error_once():
    """Of a move that fails, the last run mostly ended with the error that it has."""
    last = RunResult(run="r1", began=NOW - 9, ended=NOW - 7, error=NIGHT.error, code="failed")
    same, other = (evolve(NIGHT, last_run=each) for each in (last, evolve(last, error="the connection was lost")))

    assert 1 == sum(NIGHT.error in line for line in details(report(same)))
    assert "              the connection was lost" in [*details(report(other))]


def test_an_error_with_lines_to_paste_is_shown_in_lines():
    """The list has the first one, and says where the others are; none of them can pass for another row."""
    unknown = 'nas does not know the key of this machine\nadd these lines there:\n[peers.cam]\nkey = "MC\x1b"'
    away = evolve(NIGHT, error=unknown, last_run=RunResult(run="r1", began=NOW - 9, ended=NOW - 7, error="a\nb"))
    lines = [*details(report(away))]
    error = lines.index("error         nas does not know the key of this machine")

    assert [
        "night: failing for 1d: nas does not know the key of this machine (`realize moves show night` has more)"
    ] == list(listing(report(away)))[-1:]
    assert [
        "              add these lines there:",
        "              [peers.cam]",
        '              key = "MC\\x1b"',
    ] == lines[error + 1 : error + 4]
    assert ["              a", "              b"] == [line for line in lines if line.strip() in {"a", "b"}]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"next_run": None}, "when files settle"),
        ({"phase": Phase.PAUSED, "next_run": None}, "when it is resumed"),
        ({"when": "02:30", "next_run": None}, "-"),
    ],
)
def test_the_details_say_what_the_next_run_waits_for(changed, expected):
    """Of a move that has no time for it."""
    idle = evolve(CAMERA, phase=Phase.IDLE)

    assert f"next run      {expected}" in [*details(report(evolve(idle, **changed)))]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(-5, "0s"), (0, "0s"), (59.4, "59s"), (60, "1m"), (3599, "59m"), (3600, "1h"), (86_400, "1d"), (9e7, "1041d")],
)
def test_an_age_is_in_its_largest_unit(seconds, expected):
    """Rounded down, and never below zero: the clocks of two machines differ."""
    assert expected == age(seconds)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**19), 10**19) | st.floats(-1e19, 1e19) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(data=st.data())
def test_whatever_a_daemon_reports_is_shown_in_lines_that_can_be_printed(data):
    """Missing fields, wrong types and control characters too."""
    fields = sorted(CAMERA.as_row())
    rows = data.draw(st.lists(st.dictionaries(st.sampled_from(fields), VALUES, max_size=5), max_size=3))
    rows = [CAMERA.as_row() | row for row in rows]
    said = {"now": data.draw(VALUES), "moves": rows, "truncated": data.draw(VALUES)}

    assert all(line.isprintable() for line in (*listing(said), *details(said)))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", ("list", None, None)),
        ("nas", ("list", None, "nas")),
        ("list", ("list", None, None)),
        ("list run", ("list", None, "run")),
        ("show camera", ("show", "camera", None)),
        ("run camera nas", ("run", "camera", "nas")),
        ("pause run", ("pause", "run", None)),
        ("resume camera nas:9771", ("resume", "camera", "nas:9771")),
    ],
)
def test_the_words_of_the_command(words, expected):
    """What to do, with which move, of which peer."""
    assert expected == parsed(tuple(words.split()))


@pytest.mark.parametrize("words", ["run", "show", "nas camera", "list a b", "run a b c"])
def test_words_that_make_no_sense_are_refused(words):
    """With the forms that there are."""
    with pytest.raises(UsageError, match=r"realize moves show\|run\|pause\|resume NAME \[PEER\]"):
        parsed(tuple(words.split()))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", (None, None)),
        ("nas", ("nas", None)),
        ("10.0.0.1", ("10.0.0.1", None)),
        ("4M", (None, 4 << 20)),
        ("unlimited", (None, "unlimited")),
        ("4M:9771", ("4M:9771", None)),
        ("4M 1M", ("4M", 1 << 20)),
    ],
)
def test_the_words_of_throttle(words, expected):
    """One word that is a rate is no peer."""
    context = throttle.make_context("throttle", words.split(), **realize.context_settings)

    assert expected == context.params["words"]


@pytest.mark.parametrize("words", ["nas fast", "nas 1M 2M"])
def test_words_of_throttle_that_make_no_sense_are_refused(words):
    """A second word has to be a rate, and there is no third."""
    with pytest.raises(click.BadParameter):
        throttle.make_context("throttle", words.split(), **realize.context_settings)


def test_a_daemon_that_is_too_old_is_said_to_be():
    """In one sentence, and it is asked for nothing that it does not know."""
    old = Greeting("realized 0.0.9", minor=0)
    pair = Pair(Clock(), server_greeting=old).introduced()
    pair.client.label = "/run/c"

    class Session:
        """A session with the daemon of this machine."""

        def this_machine(self):
            """Where that is does not matter."""

        async def connected_here(self, _):
            """The connection that there is."""
            return pair.client

    failed = []
    Deferred.fromCoroutine(ask_moves(Session(), None)).addErrback(lambda failure: failed.append(failure.value))
    pair.client.close()
    pair.flush()

    assert [(ProtocolError, "/run/c: realized 0.0.9 is too old for standing moves: upgrade it")] == [
        (type(each), str(each)) for each in failed
    ]


# Real daemons.


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A daemon of this user with a standing move, at whose socket the command looks by itself.

    The move runs by itself on leap days only, so that no run of its own comes between.
    """
    folder = tempfile.mkdtemp(prefix="realize-")
    monkeypatch.setitem(ENVIRONMENT, "XDG_RUNTIME_DIR", folder)
    site = Site(tmp_path)
    for name in ("out", "in"):
        (tmp_path / name).mkdir()
    site.write_daemon_config(
        f"[moves.daily]\nfrom = {json.dumps(str(tmp_path / 'out'))}\nto = {json.dumps(str(tmp_path / 'in'))}\n"
        'when = "*-02-29 00:00:00"\nsettle = "0s"\n'
    )
    with monkeypatch.context() as patched:
        patched.setattr(site, "write_daemon_config", lambda: None)  # which `start` calls for the port
        site.start()
    yield site
    site.stop()
    shutil.rmtree(folder)


def here(*arguments, home, code=0):
    """Run the command of a user that has neither configuration nor key; stdout, or stderr if it is to fail."""
    command = Site.command(None, *arguments)
    environment = {**ENVIRONMENT, "HOME": str(home)}
    done = run_program(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    assert code == done.returncode, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr if code else done.stdout


def test_the_daemon_of_this_machine_is_seen_and_steered_without_a_key(site, tmp_path):
    """Moves, status and limits; what is refused has the exit code of a failure."""
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "out" / "a").write_text("a")
    listed = json.loads(here("moves", "--json", home=home))
    paused = here("moves", "pause", "daily", home=home)
    refused = here("moves", "run", "daily", home=home, code=1)
    resumed = here("moves", "resume", "daily", home=home)
    here("moves", "run", "daily", home=home)
    wait_for((tmp_path / "in" / "a").exists)
    status = json.loads(here("status", "--json", home=home))
    limits = json.loads(here("throttle", "1M", "--for", "1h", "--json", home=home))
    unknown = here("moves", "show", "other", home=home, code=1)

    assert ["daily"] == [each["name"] for each in listed["moves"]]
    assert ("paused", "idle") == tuple(each.splitlines()[1].split()[1] for each in (paused, resumed))
    assert "control.sock: " in refused
    assert "paused" in refused
    assert ["daily"] == [each["name"] for each in status["moves"]]
    assert [1 << 20] == [each["limit"] for each in limits if each["scope"] == "service"]
    assert "there is no move 'other'" in unknown
    site.stop()
    steered = [(each["peer"], each["action"]) for each in site.records() if each["event"] == "move_steered"]
    assert [(f"uid {os.geteuid()}", each) for each in ("pause", "resume", "run")] == steered


def test_an_admin_sees_and_steers_the_moves_of_a_peer(site):
    """By its name; the record has the name by which the daemon knows it."""
    shown = site.realize("moves", "hostb")
    paused = site.realize("moves", "pause", "daily", "hostb")
    site.stop()

    assert (0, 0) == (shown.returncode, paused.returncode)
    assert ["daily", "idle"] == shown.stdout.splitlines()[1].split()[:2]
    assert ["daily", "paused"] == paused.stdout.splitlines()[1].split()[:2]
    assert ["tester"] == [each["peer"] for each in site.records() if each["event"] == "move_steered"]


def test_a_peer_that_is_no_admin_learns_nothing_of_moves(site):
    """Nor of its own rights but that it needs another one."""
    config = (site.folder / "realized.toml").read_text()
    (site.folder / "realized.toml").write_text(config.replace("admin = true\n", ""))
    site.daemon.send_signal(signal.SIGHUP)
    wait_for(lambda: any(each["event"] == "reloaded" for each in site.records()))
    done = [site.realize(*words) for words in (("moves", "hostb"), ("moves", "pause", "daily", "hostb"))]

    assert [1, 1] == [each.returncode for each in done]
    assert ["", ""] == [each.stdout for each in done]
    assert all("admin = true" in each.stderr for each in done)
    assert "moves" not in json.loads(site.realize("status", "hostb", "--json").stdout)


@pytest.mark.parametrize("command", [["moves"], ["status"], ["throttle"], ["moves", "run", "x"]], ids=" ".join)
def test_where_no_daemon_runs_one_sentence_says_so(tmp_path, monkeypatch, command):
    """Where it was looked for, and what there is to do."""
    monkeypatch.setitem(ENVIRONMENT, "XDG_RUNTIME_DIR", str(tmp_path))
    said = here(*command, home=tmp_path, code=1)

    assert 1 == said.count("\n")
    assert f"nobody listens at {tmp_path}/realize/control.sock or /run/realize/control.sock; name a PEER" in said


def test_a_socket_elsewhere_is_found_by_the_configuration(site, tmp_path, monkeypatch):
    """The file of the daemon will do, for whoever may read it; `--peer-key` is for a peer."""
    elsewhere = f"{ENVIRONMENT['XDG_RUNTIME_DIR']}/x.sock"
    site.stop()
    config = site.folder / "realized.toml"
    config.write_text(f'control = "{elsewhere}"\n{config.read_text()}')
    monkeypatch.setattr(site, "write_daemon_config", lambda: None)
    site.start()
    said = here("moves", "--config", str(config), home=tmp_path)
    refused = here("moves", "--peer-key", site.keys["daemon"], home=tmp_path, code=2)

    assert "daily" in said
    assert "--peer-key" in refused
