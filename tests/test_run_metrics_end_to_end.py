"""Metrics of runs, with the command, a Pushgateway and a Prometheus as real processes on loopback."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from realize.telemetry.metrics.run_metrics import LAST_SUCCESS
from tests.processes import BUSY_S, ENVIRONMENT, Site
from tests.prometheus import Prometheus, Pushgateway, check_metrics, fetch, shipped_rules

DOCS = Path(__file__).parent.parent / "docs" / "run-metrics.md"
DAY = 86_400


@pytest.fixture
def gateway(tmp_path):
    """A Pushgateway."""
    with Pushgateway(tmp_path / "gateway") as gateway:
        yield gateway


@pytest.fixture
def site(tmp_path):
    """A command whose peer ``hostb`` is never there, and two files to be moved."""
    site = Site(tmp_path)
    site.port = 9
    site.write_command_config()
    plant(tmp_path / "source")
    return site


class Deaf:
    """A gateway that accepts connections and never says a word."""

    def __init__(self):
        self._server = socket.create_server(("127.0.0.1", 0))
        self._accepted = []
        self._asked = threading.Semaphore(0)
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def wait_until_asked(self):
        """Wait until somebody has connected: a run does at its beginning, and once more at its end."""
        assert self._asked.acquire(timeout=30)

    def close(self):
        self._server.close()
        for each in self._accepted:
            each.close()

    def _accept(self):
        while True:
            try:
                self._accepted.append(self._server.accept()[0])
            except OSError:
                return
            self._asked.release()


@pytest.fixture
def deaf():
    """A gateway that hangs."""
    deaf = Deaf()
    yield deaf
    deaf.close()


def plant(folder):
    """Two files of 5 bytes each."""
    folder.mkdir(exist_ok=True)
    for name in ("a", "b"):
        (folder / name).write_bytes(b"hello")


def retrying(site, *arguments):
    """Start a command that waits for a peer that is not there."""
    process = site.spawn("--no-progress", *arguments, stderr=subprocess.PIPE, text=True)
    said = ""
    while "retrying in" not in said:
        line = process.stderr.readline()
        assert line, f"it ended: {said}"
        said += line
    return process, said


def document(language, number):
    """A block of code of docs/run-metrics.md."""
    return re.findall(rf"^```{language}\n(.*?)^```", DOCS.read_text(), flags=re.MULTILINE | re.DOTALL)[number]


def test_a_failure_keeps_the_last_success(site, gateway, tmp_path):
    """All numbers are those of the last run, but the success is that of the last one that had it."""
    options = ("--quiet", "--metrics-pushgateway", gateway.url)
    target = tmp_path / "target"
    assert 0 == site.realize(*options, "--throttle-up", "unlimited", tmp_path / "source", target).returncode
    success = gateway.value(LAST_SUCCESS)
    assert 0 < time.time() - success < 60
    assert (0, 0) == (gateway.value("realize_last_exit_code"), gateway.value("realize_last_in_progress"))
    assert 10 == gateway.value("realize_last_sent_bytes")

    assert 1 == site.realize(*options, tmp_path / "nowhere", target).returncode

    assert success == gateway.value(LAST_SUCCESS)
    assert 1 == gateway.value("realize_last_exit_code")
    assert success < gateway.value("realize_last_completion_timestamp_seconds")
    assert 0 == sum(gateway.values("realize_last_files").values())
    assert 0 == gateway.value("realize_last_sent_bytes")


def test_what_fails_before_the_run_is_pushed(site, gateway, tmp_path):
    """A filter that cannot be read and a configuration that is missing are failures of the job too."""
    options = ("--quiet", "--metrics-pushgateway", gateway.url)
    codes = []
    for extra in (("--filter-from", tmp_path / "nowhere"), ("--config", tmp_path / "nowhere")):
        done = site.realize(*options, "--metrics-job", extra[0], *extra, tmp_path / "source", tmp_path / "target")
        codes.append(done.returncode)

    assert [2, 2] == codes == list(gateway.values("realize_last_exit_code").values())


def test_the_time_limit(site, gateway, tmp_path):
    """A run that its limit ends is pushed, with its exit code and its retries; one that was never connected failed."""
    done = site.realize(
        *("--quiet", "--max-duration", "5s", "--metrics-pushgateway", gateway.url, tmp_path / "source", "hostb::inbox")
    )

    assert (1, 1) == (done.returncode, gateway.value("realize_last_exit_code"))
    assert 1 <= gateway.value("realize_last_retries")
    assert 4.9 <= gateway.value("realize_last_duration_seconds") < 15
    assert gateway.value(LAST_SUCCESS) is None


@pytest.mark.parametrize("answers", [True, False], ids=["a gateway", "a gateway that hangs too"])
def test_a_run_that_hangs_is_reported_by_its_watchdog(site, gateway, deaf, tmp_path, answers):
    """The reactor is stuck for ever: it is pushed all the same, and does not last longer than without."""
    url = gateway.url if answers else deaf.url
    options = ["--quiet", "--max-duration", "5s", "--metrics-pushgateway", url]
    options += ["--metrics-textfile", str(tmp_path / "x.prom")]
    script = (
        "import sys, time\nimport realize.mover.move as m\nm.Move._is_selected = lambda *a, **k: time.sleep(600)\n"
        "from realize.cli.main import main\nmain()\n"
    )
    began = time.monotonic()

    done = subprocess.run(
        [sys.executable, "-c", script, *options, str(tmp_path / "source"), str(tmp_path / "target")],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (11, True) == (done.returncode, time.monotonic() - began < 5 + 5 + BUSY_S)
    assert 1 == done.stderr.count("--max-duration 5s reached")
    assert (11 if answers else None) == gateway.value("realize_last_exit_code")
    assert 'realize_last_exit_code{task="realize"} 11.0\n' in (tmp_path / "x.prom").read_text()


def test_a_signal(site, gateway, tmp_path):
    """SIGTERM ends the run in order, and the push is part of it."""
    process, _ = retrying(site, "--metrics-pushgateway", gateway.url, tmp_path / "source", "hostb::inbox")

    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)

    assert 20 == process.returncode == gateway.value("realize_last_exit_code")


def test_a_run_that_is_killed_at_once_has_said_that_it_began(site, gateway, tmp_path):
    """So that it is missed: `RealizeVanished` sees a run in progress that pushes nothing more."""
    process, _ = retrying(site, "--metrics-pushgateway", gateway.url, tmp_path / "source", "hostb::inbox")
    process.kill()
    process.communicate(timeout=20)

    assert 1 == gateway.value("realize_last_in_progress")
    assert time.time() - gateway.value("push_time_seconds") < 15


def test_a_second_signal_does_not_wait_for_the_push(site, deaf, tmp_path):
    """Who signals twice does not want to be told anything."""
    process, _ = retrying(site, "--metrics-pushgateway", deaf.url, tmp_path / "source", "hostb::inbox")
    deaf.wait_until_asked()
    process.send_signal(signal.SIGTERM)
    deaf.wait_until_asked()

    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=20)

    assert (20, False) == (process.returncode, "not pushed" in said)


def test_a_gateway_that_is_not_there(site, tmp_path):
    """A warning, and exit code 12 if all else went well; the password is not part of it."""
    options = ("--quiet", "--metrics-pushgateway", "http://me:secret@127.0.0.1:9")

    done = site.realize(*options, tmp_path / "source", tmp_path / "target")

    warning = "realize: warning: the metrics were not pushed to http://127.0.0.1:9: Connection refused\n"
    assert (12, warning) == (done.returncode, done.stderr)
    assert ["a", "b"] == sorted(os.listdir(tmp_path / "target"))
    failed = site.realize(*options, tmp_path / "nowhere", tmp_path / "target")
    assert 1 == failed.returncode
    assert failed.stderr.startswith(warning)


def test_a_gateway_that_hangs(site, deaf, tmp_path):
    """It keeps a run for a limited time; a signal meanwhile changes nothing, for everything was moved."""
    process = site.spawn(
        *("--quiet", "--metrics-pushgateway", deaf.url, tmp_path / "source", tmp_path / "target"),
        stderr=subprocess.PIPE,
        text=True,
    )
    deaf.wait_until_asked()
    deaf.wait_until_asked()

    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=20)

    warning = f"realize: warning: the metrics were not pushed to {deaf.url}: no answer"
    assert (12, True) == (process.returncode, said.startswith(warning))


def test_metrics_are_served_while_it_runs(site, gateway, tmp_path):
    """At the port that is said on stderr; when the port is taken, nothing is touched, and the failure is pushed."""
    process, said = retrying(
        *(site, "--metrics-addr", "127.0.0.1:0", "--max-duration", "1h", tmp_path / "source", "hostb::inbox")
    )
    try:
        url = re.search(r"metrics at (http://127\.0\.0\.1:\d+/metrics)\n", said)[1]
        served = fetch(url)
        address = url.removeprefix("http://").removesuffix("/metrics")
        done = site.realize(
            *("--metrics-addr", address, "--metrics-pushgateway", gateway.url, tmp_path / "source", tmp_path / "target")
        )
    finally:
        process.terminate()
        process.communicate(timeout=20)

    values = dict(line.rsplit(" ", 1) for line in served.splitlines() if not line.startswith("#"))
    start = float(values["realize_run_start_timestamp_seconds"])
    assert 0 <= time.time() - start < 120
    assert 3600 == pytest.approx(float(values["realize_run_deadline_timestamp_seconds"]) - start)
    assert 1 <= float(values["realize_run_retries_total"])
    assert "" == check_metrics(served)
    assert (2, 2) == (done.returncode, gateway.value("realize_last_exit_code"))
    assert f"the address for metrics: tcp:{address.partition(':')[2]}:" in done.stderr
    assert ["a", "b"] == sorted(os.listdir(tmp_path / "source"))


def test_prometheus_gets_what_the_documentation_says(site, gateway, tmp_path):
    """Its scrape configuration, and the alerts, do what it says, with odd names of job and instance."""
    options = ("--quiet", "--metrics-pushgateway", gateway.url, "--metrics-instance", "lab 3/left")
    job, target = "nightly/camera", tmp_path / "target"
    assert 0 == site.realize(*options, "--metrics-job", job, tmp_path / "source", target).returncode
    assert 1 == site.realize(*options, "--metrics-job", "never", tmp_path / "nowhere", target).returncode
    # A job that had its last success two days ago and fails since.
    old = f"# TYPE {LAST_SUCCESS} gauge\n{LAST_SUCCESS} {time.time() - 2 * DAY}\n"
    with urllib.request.urlopen(f"{gateway.url}/metrics/job/stale/instance/lab", data=old.encode()):
        pass
    stale = ("--metrics-pushgateway", gateway.url, "--metrics-job", "stale", "--metrics-instance", "lab")
    assert 1 == site.realize("--quiet", *stale, tmp_path / "nowhere", target).returncode
    scraping = document("yaml", 0)
    assert "gateway.example:9091" in scraping
    rules = re.sub(r"for: \w+", "for: 0s", shipped_rules())

    address = gateway.url.removeprefix("http://")
    both = scraping.replace("gateway.example:9091", address)
    both += f'  - job_name: without\n    static_configs:\n      - targets: ["{address}"]\n'
    with Prometheus(tmp_path / "prometheus", both, rules) as prometheus:
        selected = f'{{job="{job}"}}'
        [(labels, value)] = prometheus.wait_for(f"{LAST_SUCCESS}{selected}")
        assert {"__name__": LAST_SUCCESS, "job": job, "instance": "lab 3/left"} == labels
        assert 0 < time.time() - value < 120
        [(_, moved)] = prometheus.wait_for(f'realize_last_files{{job="{job}",result="created"}}')
        assert 2 == moved
        [(_, pushed)] = prometheus.wait_for(f"push_time_seconds{selected}")
        assert 0 < time.time() - pushed < 120
        [(labels, _)] = prometheus.wait_for(f'{LAST_SUCCESS}{{job="without",exported_job="{job}"}}')
        assert address == labels["instance"]
        alert = 'ALERTS{alertname=~"RealizeNoSuccess|RealizeNeverSucceeded",alertstate="firing",exported_job=""}'
        for late in ("stale", "never"):
            prometheus.wait_for(f'{alert} and on (job) realize_last_exit_code{{job="{late}"}}')
        assert {"stale", "never"} == {labels["job"] for labels, _ in prometheus.wait_for(alert)}

    # What stays behind is deleted as the documentation says.
    line = document("sh", 0).strip()
    for ours, theirs in (("gateway.example:9091", address), ("realize", "stale"), ("camera-host", "lab")):
        assert ours in line
        line = line.replace(ours, theirs)
    subprocess.run(line, shell=True, check=True)
    until = time.monotonic() + 20
    while "stale" in [group["labels"]["job"] for group in gateway.groups()]:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert 2 == len(gateway.groups())
