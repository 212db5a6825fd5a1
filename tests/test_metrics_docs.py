"""`docs/metrics.md` and `docs/run-metrics.md` name every metric, with type, labels and help, and no other."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily
from twisted.internet.task import Clock

from realize.config import Config, DirectoryConfig
from realize.daemon.expiry import EXPIRY_INTERVAL_S, FIRST_EXPIRY_S
from realize.daemon.metrics.counters import FAILURES, REFUSALS
from realize.daemon.served import THREADS
from realize.keys import generate_identity
from realize.moves.after_program import AfterOutcome
from realize.runs.metrics import PUSH_INTERVAL_S, REPORT_TIMEOUT_S
from realize.store.hooks import Saved
from realize.telemetry.metrics.exposition import CACHE_S, MAX_SCRAPES, REQUEST_TIMEOUT_S, new_registry
from realize.telemetry.metrics.lag import LAG_PROBE_INTERVAL_S
from realize.telemetry.metrics.run_metrics import FILE_RESULTS, Ending, Figures, Pushes, last, live
from realize.throttle.metrics import NamedLimitsCollector
from realize.throttle.shared_limits import SharedLimit
from realize.watch.source_watch import WatchMode
from tests.pages import page, quoted, rows, section
from tests.prometheus import program
from tests.test_daemon_metrics import realized

DAEMON, RUN = page("metrics.md"), page("run-metrics.md")


def daemon(folder):
    """A daemon with metrics that is not started."""
    folder.joinpath("inbox").mkdir()
    config = Config(
        key=generate_identity(), metrics="tcp:0", directories={"inbox": DirectoryConfig(str(folder / "inbox"))}
    )
    return realized(config)


def documented(heading, text):
    """Name, type and labels of each row of the tables below a heading."""
    sections = dict(part.partition("\n")[::2] for part in re.split(r"^## ", text, flags=re.MULTILINE))
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|([^|\n]*)\|", sections[heading], flags=re.MULTILINE)
    return {(name, kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


def defined(registry):
    """Name, type and labels of each metric that the collectors of a registry can have."""
    found = set()
    for collector in set(registry._collector_to_names):
        for family in collector.describe() if hasattr(collector, "describe") else collector.collect():
            labels = getattr(collector, "_labelnames", None) or getattr(family, "_labelnames", ())
            labels = {*labels, *(name for sample in family.samples for name in sample.labels if name != "le")}
            name = f"{family.name}_total" if family.type == "counter" else family.name
            found.add((name, family.type, frozenset(labels)))
    return found


def of_a_run():
    """What a run of the command serves, and what it leaves behind."""
    figures = Figures(0, 0, dict.fromkeys(FILE_RESULTS, 0), {"created": 0}, 0, 0, 0, {}, deadline=1)
    served = CollectorRegistry()
    served.register(live(lambda: figures, lambda: Pushes(0, 0)))
    return served, last(figures, Ending(0, 0, succeeded=True))


def of_named_limits():
    """What another program can show of its limits."""
    registry = CollectorRegistry()
    registry.register(NamedLimitsCollector({"web": SharedLimit(Clock(), 1024)}))
    return registry


def helps_of(registry):
    """Name and help of each metric of a registry."""
    for collector in registry._collector_to_names:
        for family in collector.describe() if hasattr(collector, "describe") else collector.collect():
            yield f"{family.name}_total" if family.type == "counter" else family.name, family.documentation


def plain(cell):
    """The text of a cell, without marks of Markdown."""
    return re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", cell).replace("`", "")


def test_realized(tmp_path):
    """What the daemon can show is what the page says of it."""
    assert documented("All metrics", DAEMON) == defined(daemon(tmp_path)._metrics_endpoint._exposition._registry)


def test_other_programs():
    """What an application can show of its limits is what the page says of it."""
    registry = of_named_limits()

    assert documented("Metrics of other programs", DAEMON) == defined(registry)


def test_realize():
    """What a run of the command serves, and what it leaves behind, is what the page says of it."""
    served, left = of_a_run()

    assert documented("While it runs", RUN) == defined(served)
    assert documented("At the end", RUN) == defined(left)
    results = [row[0] for row in rows(section(RUN, "At the end")) if len(row) == 2]
    assert list(FILE_RESULTS) == [each for cell in results for each in quoted(cell)]


def test_the_help_of_each_metric_is_on_the_page(tmp_path):
    """A row begins with what the metric says of itself, so Prometheus and the page use the same words."""
    registries = [daemon(tmp_path)._metrics_endpoint._exposition._registry, *of_a_run(), of_named_limits()]
    meanings = {quoted(row[0])[0]: plain(row[3]) for text in (DAEMON, RUN) for row in rows(text) if len(row) == 4}

    helps = {name: text for registry in registries for name, text in helps_of(registry)}

    assert [] == [
        (name, text)
        for name, text in helps.items()
        if not name.startswith("process_") and not meanings[name].lower().startswith(text.rstrip(".").lower())
    ]


def test_a_help_is_a_sentence_of_its_own(tmp_path):
    """It is read without the rows beside it: it says what is meant, not "their bytes"."""
    registry = daemon(tmp_path)._metrics_endpoint._exposition._registry

    texts = [text for each in (registry, *of_a_run(), of_named_limits()) for _, text in helps_of(each)]

    assert [] == [text for text in texts if not text.endswith(".") or re.match(r"Their|It |Its|Those|Of ", text)]


def test_what_one_asks_prometheus(tmp_path):
    """The expressions of the first table are right, and their metrics are there."""
    questions = rows(DAEMON.partition("\n## ")[0])
    asked = [each for row in questions for each in quoted(row[1])]
    rules = {"groups": [{"name": "page", "rules": [{"record": "page:x", "expr": each} for each in asked]}]}
    (tmp_path / "rules.yml").write_text(json.dumps(rules))
    known = {row[0] for row in documented("All metrics", DAEMON)}

    done = subprocess.run([program("promtool"), "check", "rules", "--lint=none", tmp_path / "rules.yml"], check=False)

    assert 0 == done.returncode
    assert len(questions) <= len(asked)
    assert set() == {name for each in asked for name in re.findall(r"realize_\w+", each)} - known


def test_reasons():
    """The page explains each reason of a refusal, and the error codes it points to are in the page of the protocol."""
    explained = {quoted(row[0])[0] for row in rows(section(DAEMON, "All metrics")) if len(row) == 2}

    assert {*REFUSALS, *(saved.value for saved in Saved)} == explained
    assert [] == [error for error in FAILURES if f"`{error.wire_code.decode()}`" not in page("protocol.md")]


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("ends after 10 seconds at the latest", REQUEST_TIMEOUT_S == 10.0),
        ("more than 16 connections", MAX_SCRAPES == 16),
        ("at most every 0.25 s", CACHE_S == 0.25),
        ("measured every 2 seconds", LAG_PROBE_INTERVAL_S == 2.0),
        ("at most 9 for each directory", THREADS == 9),
        ("counted a minute after the start, and then once an hour", (FIRST_EXPIRY_S, EXPIRY_INTERVAL_S) == (60, 3_600)),
        ("at the start, every 15 seconds, and at the end", PUSH_INTERVAL_S == 15.0),
        ("is tried twice and takes 5 seconds at most", REPORT_TIMEOUT_S == 5.0),
    ],
)
def test_numbers(text, right):
    """They are those of the code."""
    assert right
    assert text in DAEMON + RUN


def test_words_of_standing_moves():
    """Ways to watch and outcomes are those of the code; `tests/test_phases.py` is about the states."""
    meanings = {quoted(row[0])[0]: quoted(row[3]) for row in rows(DAEMON) if len(row) == 4}

    assert {each.value for each in WatchMode} == set(meanings["realize_move_sources"])
    assert [each.value for each in AfterOutcome] == meanings["realize_move_after_total"]


def test_the_comparison_sees_every_kind_of_metric():
    """Metrics with and without series, and those that a collector of ours makes up when it is asked."""
    registry = new_registry()
    Counter("a", "A", ["peer"], registry=registry)
    Gauge("b_bytes", "B", registry=registry)
    Histogram("c_seconds", "C", ["dir"], registry=registry).labels("x").observe(1)

    class Ours:
        def collect(self):
            yield CounterMetricFamily("d", "D", labels=["scope"])

        describe = collect

    registry.register(Ours())
    text = (
        "## One\n\n| name | type | labels | meaning |\n|---|---|---|---|\n"
        "| `a_total` | counter | `peer` | x |\n| `b_bytes` | gauge | | x |\n\n"
        "| `c_seconds` | histogram | `dir` | x |\n| `d_total` | counter | `scope` | x |\n"
        "## Two\n| `e` | gauge | | x |\n"
    )

    assert defined(registry) == documented("One", text)
    assert {("e", "gauge", frozenset())} == documented("Two", text)
