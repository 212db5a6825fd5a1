"""`docs/metrics.md` names every metric, with its type and labels, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily
from twisted.internet.task import Clock

from realize.config import Config, DirectoryConfig
from realize.daemon.metrics.counters import FAILURES, REFUSALS
from realize.keys import generate_identity
from realize.telemetry.metrics.exposition import new_registry
from realize.telemetry.metrics.run_metrics import FILE_RESULTS, Ending, Figures, Pushes, last, live
from realize.throttle.metrics import NamedLimitsCollector
from realize.throttle.shared_limits import SharedLimit
from tests.test_daemon_metrics import realized

DOCS = Path(__file__).parent.parent / "docs" / "metrics.md"


def daemon(folder):
    """A daemon with metrics that is not started."""
    folder.joinpath("inbox").mkdir()
    config = Config(
        key=generate_identity(), metrics="tcp:0", directories={"inbox": DirectoryConfig(str(folder / "inbox"))}
    )
    return realized(config)


def documented(heading, text=None):
    """Name, type and labels of each row of the tables below a heading."""
    text = DOCS.read_text() if text is None else text
    sections = dict(part.partition("\n")[::2] for part in re.split(r"^## ", text, flags=re.MULTILINE))
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|([^|]*)\|", sections[heading], flags=re.MULTILINE)
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


def test_realized(tmp_path):
    """What the daemon can show is what the page says of it."""
    assert documented("Metrics of realized") == defined(daemon(tmp_path)._metrics_endpoint._exposition._registry)


def test_other_programs():
    """What an application can show of its limits is what the page says of it."""
    registry = CollectorRegistry()
    registry.register(NamedLimitsCollector({"web": SharedLimit(Clock(), 1024)}))

    assert documented("Metrics of other programs") == defined(registry)


def test_realize():
    """What a run of the command serves, and what it leaves behind, is what the page says of it."""
    figures = Figures(0, 0, dict.fromkeys(FILE_RESULTS, 0), {"created": 0}, 0, 0, 0, {}, deadline=1)
    served, left = CollectorRegistry(), last(figures, Ending(0, 0, succeeded=True))
    served.register(live(lambda: figures, lambda: Pushes(0, 0)))

    page = documented("Metrics of realize")

    assert page == defined(served) | defined(left)
    section = DOCS.read_text().partition("`result` is one of")[2].partition("\n\nEach")[0]
    assert set(FILE_RESULTS) == set(re.findall(r"`(\w+)`[,:]", section))


def test_reasons():
    """The page explains each reason of a refusal, and the error codes it points to are in the page of the protocol."""
    page, protocol = DOCS.read_text(), (DOCS.parent / "protocol.md").read_text()

    assert [] == [reason for reason in REFUSALS if f"* `{reason}`: " not in page]
    assert [] == [error for error in FAILURES if f"`{error.wire_code.decode()}`" not in protocol]


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
