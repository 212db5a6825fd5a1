"""What `deploy/` holds: rules, dashboard and units do, with the real Prometheus, what they say."""

from __future__ import annotations

import configparser
import fcntl
import grp
import json
import math
import os
import pwd
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from realize.daemon.twistd_service import DRAIN_KILL_AFTER_S
from realize.exit_codes import DaemonExitCode, ExitCode
from realize.keys import generate_identity
from realize.mover.events import How
from tests.leftovers import leave_partial
from tests.processes import ENVIRONMENT, ROOT, Site, run_program, start_daemon, wait_for
from tests.prometheus import RULES, Prometheus, Pushgateway, fetch, program, shipped_rules
from tests.test_metrics_end_to_end import port_of

DEPLOY = ROOT / "deploy"
UNITS = DEPLOY / "systemd"
OPERATIONS = ROOT / "docs" / "operations.md"
DASHBOARD = json.loads((DEPLOY / "grafana" / "realize.json").read_text())
OURS = "/opt/realize/bin"
"""Where the units look for the programs."""

SMALL, SIZE = 30, 1_000
LARGE = 4 << 20
SENT = 'realize_transferred_bytes_total{kind="content", direction="send", peer="tester"}'


def promtool(*arguments):
    """What `promtool` says; it must be content."""
    # Its collections of garbage are a quarter of the work while it may take so little memory.
    memory = {"GOGC": "off", "GOMEMLIMIT": "400MiB"}
    done = subprocess.run(
        [program("promtool"), *map(str, arguments)],
        env={**os.environ, **memory},
        capture_output=True,
        text=True,
        check=False,
        cwd=RULES,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


def alert_names():
    """The names of all alerts."""
    return re.findall(r"^ +- alert: (\w+)$", (RULES / "alerts.yml").read_text(), flags=re.MULTILINE)


def panels():
    """The panels that show something."""
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def filled_in(expression):
    """A query of the dashboard as Grafana sends it with everything selected."""
    expression = expression.replace("$__rate_interval", "1m")
    return re.sub(r"\$\w+", ".*", expression)


QUERIES = [filled_in(target["expr"]) for panel in panels() for target in panel["targets"]]


class World:
    """A daemon, a Pushgateway and a Prometheus that watches both with our example and our rules."""

    def __init__(self, site, gateway, prometheus):
        self.site, self.gateway, self.prometheus = site, gateway, prometheus

    def values(self, expression):
        """The values that are numbers."""
        return [value for _, value in self.prometheus.query(expression) if not math.isnan(value)]

    def wait(self, expression):
        """As soon as there is such a value, it."""
        until = time.monotonic() + 30
        while not (found := self.values(expression)):
            assert time.monotonic() < until, f"{expression} has no value"
            time.sleep(0.1)
        return found[0]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """All of that, after files were moved, fetched, replaced, refused, held back, and left as partials."""
    folder = tmp_path_factory.mktemp("deploy")
    site = Site(folder)
    limits = '[throttle.peers]\ntester = "1M"\n'
    config = folder / "realized.toml"
    site.write_daemon_config(limits + standing_moves(site))
    # Housekeeping looks as soon as a partial may be too old.
    config.write_text('partial_max_age = "2s"\n' + config.read_text())
    site.start("--metrics-addr", "0")
    try:
        with Pushgateway(folder / "gateway") as gateway:
            scraping = "scrape_configs:\n" + (RULES / "prometheus.yml").read_text().partition("\nscrape_configs:\n")[2]
            for example, address in (
                ("nas.example:9772", f"127.0.0.1:{port_of(site)}"),
                ("gateway.example:9091", gateway.url.removeprefix("http://")),
            ):
                assert example in scraping
                scraping = scraping.replace(example, address)
            with Prometheus(folder / "prometheus", scraping, shipped_rules()) as prometheus:
                world = World(site, gateway, prometheus)
                prometheus.wait_for("realize_refusals_total")
                # One partial that nobody came back for, and one that is being written to as long as anyone looks.
                leave_partial(site.inbox, "old", b"begun")
                with leave_partial(site.inbox, "young", b"begun").open("rb") as writing:
                    fcntl.flock(writing, fcntl.LOCK_EX)
                    happen(world)
                    yield world
    finally:
        site.stop()


def standing_moves(site):
    """A move that goes well, to the daemon itself, and one whose peer is away, in which a file waits."""
    for name in ("empty", "waiting"):
        (site.folder / name).mkdir()
    (site.folder / "waiting" / "file").write_bytes(b"content")
    away = generate_identity().public_key.base64
    return (
        f'[peers.itself]\nkey = "{site.keys["daemon"]}"\naddress = "127.0.0.1:{site.port}"\n'
        'dirs = { inbox = ["create"] }\n'
        f'[peers.away]\nkey = "{away}"\naddress = "127.0.0.1:1"\n'
        f'[moves.well]\nfrom = "{site.folder / "empty"}"\nto = "itself::inbox"\nwhen = "every 1s"\n'
        f'jitter = 0\nafter = ["{shutil.which("true")}"]\n'
        f'[moves.failing]\nfrom = "{site.folder / "waiting"}"\nto = "away::inbox"\nsettle = 0\n'
    )


def happen(world):
    """Give every metric a reason to have a value: files created, replaced, refused and moved away, and a stranger."""
    site, folder = world.site, world.site.folder
    pushing = ("--quiet", "--metrics-pushgateway", world.gateway.url, "--metrics-instance", "lab", "--metrics-job")

    def move(job, *arguments, code=0):
        done = site.realize(*pushing, job, *arguments)
        assert code == done.returncode, done.stderr

    rng = random.Random(5)
    source = folder / "source"
    source.mkdir()
    for number in range(SMALL):
        (source / f"s{number}").write_bytes(rng.randbytes(SIZE))
    large = rng.randbytes(LARGE)
    (source / "large").write_bytes(large)
    run_the_unit(world, source)
    # A command has to be seen before it is seen to increase.
    world.wait('realize_commands_total{command="CommitStream"}')
    (source / "large").write_bytes(large[: LARGE // 2] + b"inserted" + large[LARGE // 2 :])
    move("camera", "--on-conflict", "replace", source, "hostb::inbox")
    (source / "large").write_bytes(b"another")
    move("clash", "--on-conflict", "fail", source, "hostb::inbox", code=1)
    # One that is cut off, after it was seen to be held back: it takes a minute, however late it is seen.
    large_only = ("--exclude", "*", "--include", "large", "hostb::inbox")
    cut = site.spawn("copy", "--quiet", "--throttle-down", "64k", *large_only, folder / "cut")
    world.wait(f'realize_connections{{peer="tester"}} == 1 and on (instance) {SENT} > 0')
    cut.kill()
    cut.wait()
    world.wait('realize_file_failures_total{reason="CONNECTION"} == 1')
    move("fetching", *large_only, folder / "back")
    (folder / "command.key").rename(folder / "former.key")
    assert 0 == site.realize("keygen", folder / "command.key").returncode
    assert 0 != site.realize("status", "hostb").returncode
    world.wait('realize_refusals_total{reason="pin_unknown"} == 1')
    world.wait('realize_last_exit_code{job="fetching"}')
    world.wait("realize_partials == 1 and realize_partials_expired_total == 1")


def run_the_unit(world, source):
    """Run the command line of the unit for batch jobs, as systemd would, with the lines for a gateway."""
    example = (UNITS / "camera.env").read_text()
    values = dict(re.findall(r"^(\w+)=(.*)$", example, flags=re.MULTILINE))
    for_gateway = dict(re.findall(r"^#(\w+)=(.*)$", example, flags=re.MULTILINE))
    assert {"SOURCE", "DESTINATION", "OPTIONS"} == set(values)
    assert {"OPTIONS", "REALIZE_METRICS_PUSHGATEWAY"} == set(for_gateway)
    assert values["OPTIONS"] + " --metrics-job camera" == for_gateway["OPTIONS"]
    line = unit("realize-move@.service")["Service"]["ExecStart"]
    for name, value in (
        ("/etc/realize/realize.toml", str(world.site.folder / "realize.toml")),
        ("$OPTIONS", for_gateway["OPTIONS"].replace("--min-age 1m", "--metrics-instance lab")),
        ("${SOURCE}", str(source)),
        ("${DESTINATION}", values["DESTINATION"].replace("nas", "hostb")),
    ):
        assert name in line
        line = line.replace(name, value)
    path, *arguments = shlex.split(line)
    assert f"{OURS}/realize" == path
    done = world.site.realize(*arguments, "--metrics-pushgateway", world.gateway.url)
    assert 0 == done.returncode, done.stderr


def unit(name):
    """A unit of systemd by section and key."""
    parser = configparser.RawConfigParser(strict=False, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str
    parser.read(UNITS / name)
    return parser


def test_the_rules_are_right():
    """Prometheus' own checker takes the rules and the example of a configuration."""
    promtool("check", "rules", "recording.yml", "alerts.yml")
    promtool("check", "config", "prometheus.yml")


@pytest.mark.parametrize("name", ["tests.yml", "tests-slow.yml"])
def test_the_alerts_fire(name):
    """Each alert fires when it should, and does not when it should not."""
    promtool("test", "rules", name)


def test_what_arrived_is_all_that_is_at_the_destination():
    """A file that was kept beside another of its name has arrived, too."""
    arrived = {how.name.lower() for how in How} - {"skipped", "gone"}
    asked = (RULES / "recording.yml").read_text() + json.dumps(DASHBOARD).replace('\\"', '"')

    found = [set(each.split("|")) for each in re.findall(r'result=~"([\w|]+)"', asked)]

    assert [arrived] * 3 == found


def test_every_alert_is_tested_and_explained():
    """No alert without both kinds of unit test, a severity, a text, and a link to what to do about it."""
    tests = "".join((RULES / name).read_text() for name in ("tests.yml", "tests-slow.yml"))
    blocks = re.split(r"^ +- alert: ", (RULES / "alerts.yml").read_text(), flags=re.MULTILINE)[1:]
    wanted = ("expr:", "severity: critical|severity: warning", "summary:", "description:")

    assert sorted(set(alert_names())) == sorted(alert_names())
    assert [] == [name for name in alert_names() if f"'{name}: fires" not in tests]
    assert [] == [name for name in alert_names() if f"'{name}: does not fire" not in tests]
    assert [] == [block for block in blocks if not all(re.search(each, block) for each in wanted)]
    for block in blocks:
        name = re.match(r"\w+", block)[0]
        page = f"{{{{ $externalLabels.realize_runbook }}}}#{name.lower()}"
        assert [page] == re.findall(r'runbook_url: "(.+)"', block)
    sections = re.split(r"^### ", OPERATIONS.read_text(), flags=re.MULTILINE)[1:]
    explained = {name: text for name, _, text in (each.partition("\n") for each in sections) if name in alert_names()}
    assert alert_names() == list(explained)
    assert [] == [
        name for name, text in explained.items() if not all(f"* {each}: " in text for each in ("Look at", "Do"))
    ]
    severities = {re.match(r"\w+", block)[0]: re.search(r"severity: (\w+)", block)[1] for block in blocks}
    assert severities == {name: re.search(r"Severity: `(\w+)`", text)[1] for name, text in explained.items()}


def test_the_dashboard_is_whole():
    """Panels have ids of their own and do not overlap, and every query asks the Prometheus that was chosen."""
    everything = DASHBOARD["panels"]
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in everything)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    text = json.dumps(DASHBOARD)

    assert len(everything) == len({panel["id"] for panel in everything})
    assert len(cells) == len(set(cells))
    assert 24 > max(x for x, _ in cells)
    assert {"datasource", "instance", "peer", "dir", "batch"} == variables
    assert variables | {"__rate_interval", "__all"} == set(re.findall(r"\$\{?(\w+)", text))
    for panel in panels():
        chosen = [each["datasource"]["uid"] for each in (panel, *panel["targets"])]
        assert ["${datasource}"] * len(chosen) == chosen
    assert all(
        len(panel["targets"]) == len({target["refId"] for target in panel["targets"]}) and panel["description"]
        for panel in panels()
    )


def test_the_dashboard_takes_no_reserve_for_free():
    """Neither now nor in a day: peers are refused before they touch it, which the alerts say as well."""
    shares = [query for query in QUERIES if "free_bytes" in query and "size_bytes" in query]

    assert 2 == len(shares) == sum("- realize_directory_reserve_bytes" in query for query in shares)


def test_prometheus_sees_what_happens(world):
    """Against the real thing: every query has data, every rule is evaluated, alerts fire, values are right.

    One test, because what it needs takes its time to start.
    """
    queries_have_data(world)
    variables_have_values(world)
    rules_are_evaluated(world)
    alerts_fire_for_what_happened(world)
    values_are_what_was_moved(world)


def queries_have_data(world):
    """Each query of the dashboard comes to a number at least."""
    for query in QUERIES:
        world.wait(query)


def variables_have_values(world):
    """What the lists at the top of the dashboard are made of."""
    found = {}
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"]).groups()
            series = world.prometheus.wait_for(filled_in(selector))
            found[variable["name"]] = {labels[label] for labels, _ in series}

    assert 1 == len(found.pop("instance"))
    assert {"peer": {"tester", "itself", "away"}, "dir": {"inbox"}, "batch": {"camera", "clash", "fetching"}} == found


def rules_are_evaluated(world):
    """None fails; each that is recorded has a value; each metric that a rule asks for is there."""
    recorded = re.findall(r"record: (\S+)", shipped_rules())
    for name in recorded:
        world.wait(name)
    evaluated = [rule for group in api(world, "rules")["groups"] for rule in group["rules"]]
    asked = set(re.findall(METRIC, " ".join(rule["query"] for rule in evaluated)))

    assert len(alert_names()) + len(recorded) == len(evaluated)
    assert {("ok", "")} == {(rule["health"], rule.get("lastError", "")) for rule in evaluated}
    assert {
        "up",
        "push_time_seconds",
        "realize_last_exit_code",
        "instance:realize_reactor_lag_seconds:p99_rate5m",
    } <= asked
    assert set() == asked - set(api(world, "label/__name__/values"))


def alerts_fire_for_what_happened(world):
    """The failed run, the stranger and the partial that was too old are told of, and nothing else is."""
    expected = {"RealizeFailed", "RealizeUnknownKey", "RealizePartialsExpired"}
    for name in expected:
        world.wait(f'ALERTS{{alertname="{name}", alertstate="firing"}}')
    firing = {labels["alertname"] for labels, _ in world.prometheus.query('ALERTS{alertstate="firing"}')}

    assert expected == firing
    assert ["clash"] == [labels["job"] for labels, _ in world.prometheus.query('ALERTS{alertname="RealizeFailed"}')]


def values_are_what_was_moved(world):
    """Prometheus knows the files and bytes of both ends, and they agree."""
    committed, content = "realize_files_committed_total", "realize_transferred_bytes_total"
    [saved] = world.values('realize_saved_bytes_total{how="delta"}')
    [sent] = world.values(SENT)

    assert 0.8 * LARGE < saved < LARGE + 8
    assert LARGE + 8 < sent < 2 * (LARGE + 8)
    for expected, query in (
        (SMALL + 1, f'{committed}{{dir="inbox", how="created"}}'),
        (1, f'{committed}{{dir="inbox", how="replaced"}}'),
        (1, "realize_files_removed_total"),
        (
            SMALL * SIZE + LARGE + (LARGE + 8 - saved),
            f'{content}{{kind="content", direction="receive", peer="tester"}}',
        ),
        (LARGE + 8, 'realize_last_sent_bytes{job="fetching", instance="lab"}'),
        (LARGE + 8 - saved, 'realize_last_sent_bytes{job="camera", instance="lab"}'),
        (1, 'realize_last_files{job="camera", result="replaced"}'),
        (0, 'realize_last_files{job="camera", result="created"}'),
        (1, 'realize_last_files{job="clash", result="failed"}'),
        (1, 'realize_file_failures_total{reason="CONNECTION"}'),
        (1 << 20, 'realize_throttle_limit_bytes_per_second{peer="tester", direction="send"}'),
        (1, "realize_partials_expired_total"),
    ):
        assert [expected] == world.values(query), query


def api(world, path):
    """An answer of Prometheus' API."""
    return json.loads(fetch(f"{world.prometheus.url}/api/v1/{path}"))["data"]


METRIC = r"\b(?:up\b|(?:realize|process|push|instance\w*:|job\w*:)\w*_\w*(?::\w+)*)"
"""Names of metrics in expressions, those that we record too."""


def in_place(folder, name, called=None):
    """A copy of a unit that names programs which are there."""
    bin_folder = Path(sys.executable).parent
    copy = folder / (called or name)
    copy.write_text((UNITS / name).read_text().replace(OURS, str(bin_folder)))
    return str(copy)


@pytest.mark.parametrize("name", ["realized.service", "realize-move@.service"])
def test_the_units_allow_to_ask_who_writes(name):
    """Files of other users, which a service moves mostly, are not known to be open for writing without CAP_LEASE."""
    service = unit(name)["Service"]

    assert ("CAP_LEASE", "CAP_LEASE") == (service["AmbientCapabilities"], service["CapabilityBoundingSet"])


@pytest.mark.parametrize("name", ["realized.service", "realize-move@.service"])
def test_the_journal_drops_no_record_of_a_unit(name):
    """By default it drops what is beyond 10,000 lines in 30 s, and the log has a line for each file.

    A zero in a unit counts as not given (systemd#22034), so the limit is one that nothing reaches.
    """
    service = unit(name)["Service"]

    assert ("1s", "1000000") == (service["LogRateLimitIntervalSec"], service["LogRateLimitBurst"])


def test_a_batch_job_that_is_stopped_has_not_failed():
    """Neither by its time limit nor by `systemctl stop`: the next run goes on."""
    codes = unit("realize-move@.service")["Service"]["SuccessExitStatus"].split()

    assert {str(ExitCode.DEADLINE_REACHED), str(ExitCode.INTERRUPTED)} == set(codes)


def test_the_daemon_is_not_started_again_with_a_wrong_configuration():
    """Only with what may be over by itself; and it has told by then whether it listens."""
    service = unit("realized.service")["Service"]

    assert str(DaemonExitCode.CONFIGURATION) == service["RestartPreventExitStatus"]
    assert ("notify", "on-failure") == (service["Type"], service["Restart"])


@pytest.mark.parametrize("name", ["realized.service", "realize-move@.service"])
def test_the_units_allow_to_set_permissions_of_set_gid_directories(name):
    """chmod(2) keeps the set-gid bit of a directory only by setting it again, which RestrictSUIDSGID= refuses.

    Directories in one with that bit would stay open to the daemon's user alone.
    """
    assert "RestrictSUIDSGID" not in unit(name)["Service"]


def test_systemd_takes_the_units(tmp_path):
    """`systemd-analyze verify` has nothing to say, with the example of a drop-in neither."""
    units = [in_place(tmp_path, "realized.service")]
    in_place(tmp_path, "realize-move@.service")
    in_place(tmp_path, "realize-move@.timer")
    units += [str(tmp_path / f"realize-move@camera.{kind}") for kind in ("service", "timer")]
    drop_ins = tmp_path / "realized.service.d"
    drop_ins.mkdir()
    shutil.copy(UNITS / "directories.conf", drop_ins)

    done = subprocess.run(
        [program("systemd-analyze"), "verify", "--man=no", *units], capture_output=True, text=True, check=False
    )

    assert (0, "") == (done.returncode, done.stderr)


@pytest.mark.parametrize(("form", "beginning"), [("", "<6>listening "), ('format = "json"', '{"ts":')])
def test_the_daemon_takes_the_command_line_of_its_unit(tmp_path, form, beginning):
    """Started as the unit does, the daemon logs for the journal unless the configuration says, reloads and ends."""
    site = Site(tmp_path)
    site.write_daemon_config(f"[logs]\n{form}\n")
    service = unit("realized.service")["Service"]
    path, *arguments = shlex.split(service["ExecStart"])
    assert f"{OURS}/twistd" == path
    [path, *reloading] = shlex.split(service["ExecReload"])
    assert f"{OURS}/realize" == path
    arguments, reloading = (
        [str(tmp_path / "realized.toml") if each == "/etc/realize/realized.toml" else each for each in words]
        for words in (arguments, reloading)
    )
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    environ = {**ENVIRONMENT, "RUNTIME_DIRECTORY": str(runtime)}
    log = tmp_path / "log"
    with log.open("wb") as output:
        daemon = subprocess.Popen(
            [str(Path(sys.executable).parent / "twistd"), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=tmp_path,
            env={**environ, "JOURNAL_STREAM": journal_stream(log)},
        )
    try:
        wait_for_line(log, daemon, beginning, "listening")
        run_program(site.command(*reloading), env=environ, check=True)
        wait_for_line(log, daemon, beginning.replace("listening", "reloaded"), "reloaded")
        (tmp_path / "realized.toml").write_text("nonsense = 1\n")
        failed = run_program(site.command(*reloading), env=environ, capture_output=True, text=True)
    finally:
        daemon.terminate()
        status = daemon.wait(30)

    assert (2, True) == (failed.returncode, "nonsense" in failed.stderr)
    assert -signal.SIGTERM == status  # as twistd ends, and systemd expects
    assert float(service["TimeoutStopSec"].removesuffix("s")) > 10 + DRAIN_KILL_AFTER_S


def journal_stream(file):
    """What systemd would say if that file were the journal."""
    status = file.stat()
    return f"{status.st_dev}:{status.st_ino}"


def wait_for_line(log, process, beginning, event):
    until = time.monotonic() + 60
    while not any(line.startswith(beginning) and event in line for line in log.read_text().splitlines()):
        assert process.poll() is None
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.05)


def test_logrotate_and_the_daemon_agree(tmp_path):
    """Rotated as shipped, the old file has what was logged before, and the daemon goes on in a new one."""
    logs = tmp_path / "realize"
    logs.mkdir(mode=0o750)
    log = logs / "realized.log"
    site = Site(tmp_path)
    site.write_daemon_config(f'[logs]\nfile = "{log}"\n')
    daemon = start_daemon(tmp_path / "realized.toml", tmp_path / "said")
    try:
        wait_for(lambda: log.exists() and '"listening"' in log.read_text())
        done = rotate(tmp_path, log, daemon.pid)
        wait_for(lambda: log.exists() and '"log_reopened"' in log.read_text())
    finally:
        daemon.terminate()
        daemon.wait(30)

    assert (0, "") == (done.returncode, done.stderr)
    assert '"listening"' in (logs / "realized.log.1").read_text()
    assert ["--signal=SIGUSR1"] == [each for each in (tmp_path / "called").read_text().split() if "signal" in each]


def test_logrotate_disturbs_no_daemon_that_does_not_run(tmp_path):
    """The file is rotated, and nobody is told, so there is no mail of an error."""
    log = tmp_path / "realized.log"
    log.write_text("left\n")

    done = rotate(tmp_path, log, None)

    assert (0, "") == (done.returncode, done.stderr)
    assert "kill" not in (tmp_path / "called").read_text()
    assert "left\n" == (tmp_path / "realized.log.1").read_text()


def rotate(folder, log, pid):
    """Rotate the log at once with the file as shipped, and a `systemctl` that knows the daemon with that process id."""
    user, group = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name
    text = (DEPLOY / "logrotate" / "realized").read_text()
    for shipped, here in (
        ("\n/var/log/realize/realized.log {", f"\n{log} {{"),
        ("su realize realize", f"su {user} {group}"),
    ):
        assert shipped in text
        text = text.replace(shipped, here)
    file = folder / "logrotate.conf"
    file.write_text(text)
    file.chmod(0o644)
    systemctl = folder / "systemctl"
    alive = "false" if pid is None else "true"
    systemctl.write_text(
        f'#!/bin/sh\necho "$@" >> {folder}/called\n'
        f'case "$*" in *is-active*) {alive};; *kill*) kill -USR1 {pid};; esac\n'
    )
    systemctl.chmod(0o755)
    return subprocess.run(
        [logrotate(), "--force", "--state", str(folder / "state"), str(file)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"},
    )


def logrotate():
    """It is not on the path of everybody."""
    return shutil.which("logrotate", path=f"{os.environ['PATH']}:/usr/sbin") or program("logrotate")
