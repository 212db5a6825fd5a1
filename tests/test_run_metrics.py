"""The metrics of a run: `realize.runs.metrics`, and `run_metrics` and `textfile` in `realize.telemetry.metrics`."""

from __future__ import annotations

import json
import math
import os
import threading
import time
from contextlib import nullcontext
from urllib.error import HTTPError
from urllib.request import urlopen

import click
import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread

from realize.cli.exit_codes import command_exit_code
from realize.cli.logs import command_log, logger_of
from realize.cli.metrics_options import MetricsOptions, metrics_targets
from realize.cli.options import LogOptions
from realize.errors import (
    Busy,
    ConfigError,
    ConnectionFailed,
    Interrupted,
    NoSpace,
    RealizeError,
    SourceChanged,
    StorageError,
    Unsettled,
)
from realize.exit_codes import ExitCode
from realize.mover.events import (
    End,
    Failed,
    Finished,
    Found,
    How,
    Left,
    Progressed,
    Retrying,
    SourceStarted,
    Started,
    Unknown,
)
from realize.process import process_started
from realize.runs.metrics import PUSH_INTERVAL_S, RunMetrics
from realize.runs.options import MetricsTargets, Rates
from realize.telemetry.metrics.pushing import PushFailed
from realize.telemetry.metrics.run_metrics import FILE_RESULTS, LAST_SUCCESS, Ending, Figures, Pushes, last, live
from realize.telemetry.metrics.textfile import last_success, write_textfile
from tests.prometheus import check_metrics

FIGURES = Figures(
    started=1000.0,
    duration=60.0,
    files=dict.fromkeys(FILE_RESULTS, 1),
    sizes={"created": 10},
    sent=5,
    retries=2,
    unknown_removals=3,
    limits={"send": 1024.0},
    deadline=1100.0,
)
TASK = {"task": "camera"}


def values(registry):
    """The value of every sample by name and labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in registry.collect()
        for sample in family.samples
    }


class Gateway:
    """Stands for a gateway: keeps what is pushed, or fails."""

    def __init__(self, trouble=None):
        self.url = "http://gateway:9091"
        self.trouble = trouble
        self.pushed = []

    def push(self, registry, _timeout):
        self.pushed.append(values(registry))
        if self.trouble is not None:
            raise PushFailed(self.trouble, permanent=True)


def say_warning(sentence):
    """As the command does."""
    click.echo(f"realize: warning: {sentence}", err=True)


def metrics_of(wanted, *, dry_run=False, warn=say_warning):
    """The metrics of a run with a limit for what it sends."""
    return RunMetrics(
        wanted,
        Rates(up=2048),
        began=process_started(),
        dry_run=dry_run,
        warn=warn,
        logger_of=logger_of,
        code_of=command_exit_code,
        serving_at=lambda where: click.echo(f"realize: metrics at {where}", err=True),
    )


def observe(metrics, *events):
    """Let the observer of a run see events."""
    for event in events:
        metrics.tally(event)
        metrics(event)


EVENTS = (
    SourceStarted("a", "b"),
    Found(10, 10_000),
    Finished(b"1", 1000, 900, How.CREATED, b"", removed=True),
    Finished(b"2", 1000, 100, How.REPLACED, b"", removed=True),
    Finished(b"3", 1000, 0, How.ALREADY_THERE, b"", removed=True),
    Finished(b"4", 1000, 0, How.SKIPPED, b"", removed=False),
    Finished(b"5", 1000, 0, How.GONE, b"", removed=False),
    Finished(b"9", 1000, 0, How.RENAMED, b"", removed=True, stored_as=b"9.1"),
    Failed(b"6", End.DESTINATION, NoSpace("full")),
    Failed(b"directory", End.SOURCE, StorageError("directory: cannot be listed"), found=False),
    Left(b"link", "symlink"),
    Started(b"7", 1000, 300),
    Progressed(b"7", 200, 150),
    Unknown(b"8", 1000, 100, None),
)


def test_files_and_bytes_by_what_became_of_them():
    """Each file is under one of the results, and what is under way counts for what is left of it.

    A directory that cannot be read has failed, and was not found: no file that remains is hidden by it.

    What the earlier version of a file had has not travelled.
    """
    gateway = Gateway()
    metrics = metrics_of(MetricsTargets(gateway=gateway))
    observe(metrics, *EVENTS)

    assert 1 == metrics.close(1)

    [pushed] = gateway.pushed
    files = {key[1]: value for key, value in pushed.items() if key[0] == "realize_last_files"}
    sizes = {key[1]: value for key, value in pushed.items() if key[0] == "realize_last_bytes"}
    assert {**dict.fromkeys(FILE_RESULTS, 1), "failed": 2, "remaining": 2} == files
    assert 10 + 2 == sum(files.values())
    assert {how.name.lower(): 1000 for how in How} | {"remaining": 3500} == sizes
    assert 1150 == pushed["realize_last_sent_bytes",]
    assert 2048 == pushed["realize_last_throttle_limit_bytes_per_second", "send"]
    assert math.inf == pushed["realize_last_throttle_limit_bytes_per_second", "receive"]


BUSY = (
    Failed(b"1", End.SOURCE, SourceChanged("1: changed")),
    Failed(b"2", End.SOURCE, Unsettled("2: changed before its turn came")),
    Failed(b"3", End.DESTINATION, Busy("3: is being written")),
)


@pytest.mark.parametrize(
    ("events", "code", "error", "busy", "lasting"),
    [
        ((), 0, None, 0, 0),
        (BUSY, 1, None, 3, 0),
        ((*BUSY, Failed(b"4", End.DESTINATION, NoSpace("full"))), 1, None, 3, 1),
        ((*BUSY, Finished(b"1", 1, 1, How.CREATED, b"", removed=True)), 1, None, 2, 0),
        ((Failed(b"", End.SOURCE, Busy("nas: is busy")),), 1, None, 0, 1),
        (BUSY, 1, ConnectionFailed("lost"), 3, 1),
        (BUSY, 20, Interrupted("interrupted"), 3, 0),
        ((), 2, ConfigError("x"), 0, 1),
    ],
)
def test_what_needs_nobody_is_told_from_what_does(events, code, error, busy, lasting):
    """Files that others use go away by themselves; what ends the run as a whole, or fails a source, does not."""
    gateway = Gateway()
    metrics = metrics_of(MetricsTargets(gateway=gateway))
    observe(metrics, SourceStarted("a", "b"), Found(4, 4), *events)

    def result():
        if error is not None:
            raise error
        return code

    with nullcontext() if error is None else pytest.raises(type(error)):
        metrics.close_after(result, 10.0)

    [pushed] = gateway.pushed
    assert code == pushed["realize_last_exit_code",]
    assert [busy, lasting] == [pushed["realize_last_failures", kind] for kind in ("busy", "lasting")]


def test_what_is_found_again_after_a_retry_counts_once():
    """A source that begins again is not added to itself; the retry is counted."""
    gateway = Gateway()
    metrics = metrics_of(MetricsTargets(gateway=gateway))
    copied = Finished(b"1", 1000, 1000, How.CREATED, b"", removed=False)
    again = Finished(b"1", 1000, 0, How.ALREADY_THERE, b"", removed=False)

    observe(metrics, SourceStarted("a", "b"), Found(2, 2000), copied, Retrying(ConnectionFailed("lost"), 1.0))
    observe(metrics, SourceStarted("a", "b"), Found(2, 2000), again)
    metrics.close(11)

    [pushed] = gateway.pushed
    files = {key[1]: value for key, value in pushed.items() if key[0] == "realize_last_files" and value}
    assert ({"already_there": 1, "remaining": 1}, 1) == (files, pushed["realize_last_retries",])
    assert 1000 == pushed["realize_last_bytes", "remaining"] == pushed["realize_last_bytes", "already_there"]


@pytest.mark.parametrize("code", [0, 1, 2, 11, 20])
def test_only_a_success_says_when_it_was(code):
    """Whatever else ended the run leaves the last success alone; its exit code and its end are told."""
    gateway = Gateway()
    before = time.time()

    assert code == metrics_of(MetricsTargets(gateway=gateway)).close(code)

    [pushed] = gateway.pushed
    assert (code, 0) == (pushed["realize_last_exit_code",], pushed["realize_last_in_progress",])
    assert before <= pushed["realize_last_completion_timestamp_seconds",] <= time.time()
    assert (code == 0) == ((LAST_SUCCESS,) in pushed)


@pytest.mark.parametrize("code", [0, 1, 2, 11, 20])
def test_a_push_that_fails_is_exit_code_12_if_nothing_is_worse(code, capsys):
    """The warning names the gateway and the cause."""
    metrics = metrics_of(MetricsTargets(gateway=Gateway("no answer")))

    assert (code or 12) == metrics.close(code)
    assert (
        "realize: warning: the metrics were not pushed to http://gateway:9091: no answer\n" == capsys.readouterr().err
    )


def test_the_end_is_reported_once():
    """Who comes second gets the exit code of the first."""
    gateway = Gateway()
    metrics = metrics_of(MetricsTargets(gateway=gateway))

    assert [20, 20] == [metrics.close(20), metrics.close(0)]
    assert 1 == len(gateway.pushed)


def test_an_urgent_end_waits_for_nothing():
    """Nobody reads stderr, so the warning cannot be written: the exit code is there all the same."""
    go_on = threading.Event()
    metrics = metrics_of(MetricsTargets(gateway=Gateway("no answer")), warn=lambda _: go_on.wait(30))
    began = time.monotonic()

    code = metrics.close_urgently(11)

    assert (11, True) == (code, time.monotonic() - began < 15)
    go_on.set()


def test_an_urgent_end_while_the_end_is_reported(monkeypatch):
    """A run that ended well, but whose gateway does not answer in time, is one whose metrics were not handed over."""
    metrics, go_on = metrics_of(MetricsTargets(gateway=Gateway())), threading.Event()
    monkeypatch.setattr(metrics._pusher, "_push", lambda *_: go_on.wait(30))
    reporting = threading.Thread(target=metrics.close, args=(0,))
    reporting.start()
    while not metrics.closing:
        time.sleep(0.01)

    code = metrics.close_urgently(11)

    go_on.set()
    reporting.join(30)
    assert ExitCode.NOT_REPORTED == code


def test_a_dry_run_reports_nothing(tmp_path):
    """It moves nothing, so it has no success, and the one before is not overwritten."""
    gateway = Gateway()
    metrics = metrics_of(MetricsTargets(gateway=gateway, textfile=str(tmp_path / "x.prom")), dry_run=True)

    assert 0 == metrics.close(0)
    assert ([], []) == (gateway.pushed, os.listdir(tmp_path))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 2),
        (Interrupted("x"), 20),
        (ConnectionFailed("x"), 1),
        (click.UsageError("x"), 2),
        (KeyboardInterrupt(), 20),
        (ValueError(), 1),
    ],
)
def test_an_error_before_the_run_is_reported(error, code):
    """What goes wrong before there is a run is pushed with the exit code of the command."""
    gateway = Gateway()

    with pytest.raises(type(error)), metrics_of(MetricsTargets(gateway=gateway)):
        raise error

    [pushed] = gateway.pushed
    assert code == pushed["realize_last_exit_code",] == command_exit_code(error)


async def test_while_the_run_goes_on_it_is_pushed_every_15_seconds():
    """From its beginning, what is known is pushed, and nothing that only the end can tell; with the run it stops."""
    gateway, clock = Gateway(), Clock()
    metrics = metrics_of(MetricsTargets(gateway=gateway))
    async with metrics.during(clock):
        metrics._pusher._thread.join(10)
        for size in (1, 2):
            metrics.tally(Found(1, size))
            clock.advance(PUSH_INTERVAL_S - 0.1)
            assert size == len(gateway.pushed)
            clock.advance(0.1)
            metrics._pusher._thread.join(10)
    clock.advance(PUSH_INTERVAL_S)

    told = [
        (pushed["realize_last_in_progress",], pushed["realize_last_bytes", "remaining"]) for pushed in gateway.pushed
    ]
    assert [(1, 0), (1, 1), (1, 3)] == told
    names = {name for name, *_ in gateway.pushed[0]}
    assert set() == names & {"realize_last_exit_code", "realize_last_completion_timestamp_seconds", LAST_SUCCESS}


async def test_a_fault_in_the_metrics_that_are_served_is_logged(capfd):
    """To stderr, as every fault is where no log was asked for; stdout is for results."""
    from twisted.internet import reactor

    with command_log(LogOptions(), reactor):
        pass  # ends the log that another test of this process may have left
    metrics = metrics_of(MetricsTargets(endpoint="tcp:0:interface=127.0.0.1"))
    with command_log(LogOptions(), reactor):
        async with metrics.during(reactor):
            url = capfd.readouterr().err.split()[-1]
            metrics.tally = None
            with pytest.raises(HTTPError, match="500") as caught:
                await deferToThread(urlopen, url, timeout=30)
            caught.value.close()

    out, err = capfd.readouterr()
    [record] = [json.loads(line) for line in err.splitlines()]
    assert ("", "metrics_failed", "cli") == (out, record["event"], record["component"])


async def test_a_run_that_is_cancelled_stops_to_push():
    """An error that ends the run ends its timer too."""
    metrics, clock = metrics_of(MetricsTargets(gateway=Gateway())), Clock()

    with pytest.raises(RealizeError):
        async with metrics.during(clock):
            raise RealizeError("over")

    assert [] == clock.getDelayedCalls()


async def test_metrics_are_served_while_the_run_goes_on(capsys):
    """At a free port, which is said; a port that is taken is an error of the command line."""
    from twisted.internet import reactor

    from realize.errors import UsageError

    port = Deferred()
    metrics = metrics_of(MetricsTargets(endpoint="tcp:0:interface=127.0.0.1"))
    async with metrics.during(reactor):
        said = capsys.readouterr().err
        number = said.rpartition(":")[2].removesuffix("/metrics\n")
        with pytest.raises(UsageError, match=r"^the address for metrics: tcp:"):
            async with metrics_of(MetricsTargets(endpoint=f"tcp:{number}:interface=127.0.0.1")).during(reactor):
                port.callback(None)

    assert f"realize: metrics at http://127.0.0.1:{number}/metrics\n" == said
    assert not port.called


def test_promtool_finds_no_fault():
    """All that is exposed passes `promtool check metrics`, and OpenMetrics can be made of it."""
    served = live(lambda: FIGURES, lambda: Pushes(3, 1))

    for registry in (served, last(FIGURES, Ending(0, 1060.0, succeeded=True), TASK), last(FIGURES, None)):
        assert "" == check_metrics(generate_latest(registry).decode())
        assert openmetrics(registry).endswith(b"# EOF\n")
    assert 3 == values(served)["realize_run_pushes_total",]


def test_a_metric_has_one_name():
    """What is served and what is left behind have no name in common, so no name has two kinds."""
    served = {family.name for family in live(lambda: FIGURES, lambda: Pushes(0, 0)).collect()}
    left = {family.name for family in last(FIGURES, Ending(0, 1.0, succeeded=True)).collect()}

    assert set() == served & left


def test_the_textfile_keeps_the_last_success(tmp_path):
    """It is replaced as a whole, so a run without success takes over what the one before it had."""
    file = str(tmp_path / "camera.prom")

    write_textfile(file, FIGURES, Ending(0, 1000.0, succeeded=True), TASK)
    write_textfile(file, FIGURES, Ending(1, 2000.0, succeeded=False), TASK)
    write_textfile(file, FIGURES, Ending(1, 3000.0, succeeded=False), TASK)

    assert 1000.0 == last_success(file, TASK)
    text = (tmp_path / "camera.prom").read_text()
    assert f'{LAST_SUCCESS}{{task="camera"}} 1000.0\n' in text
    assert 'realize_last_completion_timestamp_seconds{task="camera"} 3000.0\n' in text
    assert "" == check_metrics(text)
    assert ["camera.prom"] == os.listdir(tmp_path)


def test_a_textfile_without_success_has_none(tmp_path):
    """The first run failed, or the file is somebody else's or is broken: no success is made up."""
    file = tmp_path / "camera.prom"
    others = (f'{LAST_SUCCESS}{{task="other"}} 5\n', f"{LAST_SUCCESS} 5\n", f'{LAST_SUCCESS}{{task="camera"}}')
    for before in (None, b"nonsense {\n", b"\xff", *map(str.encode, others)):
        if before is not None:
            file.write_bytes(before)

        write_textfile(str(file), FIGURES, Ending(1, 2000.0, succeeded=False), TASK)

        assert LAST_SUCCESS not in file.read_text()


def test_the_textfile_can_be_read_by_everybody(tmp_path):
    """node_exporter runs as somebody else; the umask of a job does not keep it out."""
    umask = os.umask(0o077)
    try:
        write_textfile(str(tmp_path / "x.prom"), FIGURES, Ending(0, 1.0, succeeded=True), TASK)
    finally:
        os.umask(umask)

    assert 0o644 == (tmp_path / "x.prom").stat().st_mode & 0o777


def test_a_textfile_that_cannot_be_written_is_exit_code_12(tmp_path, capsys):
    """As a push that fails; it says why, and leaves nothing behind."""
    metrics = metrics_of(MetricsTargets(textfile=str(tmp_path / "taken")))
    (tmp_path / "taken").mkdir()

    assert ExitCode.NOT_REPORTED == metrics.close(0)
    assert f"were not written to {tmp_path}/taken: Is a directory" in capsys.readouterr().err
    assert ["taken"] == os.listdir(tmp_path)


def test_a_textfile_tells_of_a_push_that_failed(tmp_path):
    """Its exit code is that of the command; everything was moved, so it was a success."""
    file = tmp_path / "x.prom"
    metrics = metrics_of(MetricsTargets(gateway=Gateway("no answer"), textfile=str(file)))

    assert ExitCode.NOT_REPORTED == metrics.close(0)
    assert 'realize_last_exit_code{task="realize"} 12.0\n' in file.read_text()
    assert last_success(str(file), {"task": "realize"}) is not None


def wanted(**options):
    """What options ask for."""
    return metrics_targets(click.Context(click.Command("move")), MetricsOptions(**options))


def test_defaults_of_the_group():
    """The job is realize, the instance the name of this machine."""
    gateway = wanted(pushgateway="http://h:9091").gateway

    assert ("realize", os.uname().nodename) == (gateway.job, gateway.instance)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"instance": "i"}, "--metrics-pushgateway"),
        ({"instance": "i", "textfile": "/tmp/x.prom"}, "--metrics-pushgateway"),
        ({"job": "j"}, "--metrics-textfile"),
        ({"pushgateway": "gateway:9091"}, "--metrics-pushgateway: "),
        ({"pushgateway": "http://h", "job": ""}, "job"),
        ({"pushgateway": "http://h", "instance": " "}, "instance"),
        ({"textfile": "/nowhere/x.prom"}, "/nowhere is not a directory"),
        ({"textfile": "/tmp"}, "it is a directory"),
        ({"textfile": "/tmp/x.prom", "job": " "}, "--metrics-job"),
        ({"textfile": "/tmp/x.prom", "job": "\udcff"}, "--metrics-job"),
        ({"addr": "nonsense"}, "--metrics-addr: "),
    ],
)
def test_senseless_options_are_usage_errors(options, word):
    """Before anything is done, with a sentence that names the option."""
    with pytest.raises(click.UsageError) as caught:
        wanted(**options)

    assert word in caught.value.message
