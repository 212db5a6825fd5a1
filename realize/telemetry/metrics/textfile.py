"""Write metrics where node_exporter's textfile collector reads them.

A textfile is replaced as a whole, so the time of the last success is copied from the old file after a run without one.
A reader sees the old file or the new one, never a part of one.
The file is readable for everybody whatever the umask, because node_exporter runs as another user.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Mapping
from typing import Final

from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from realize.telemetry.metrics.run_metrics import LAST_SUCCESS, Ending, Figures, last, with_success

MODE: Final = 0o644
"""Readable for everybody, because node_exporter runs as another user."""


def write_textfile(path: str, figures: Figures, ending: Ending, labels: Mapping[str, str]) -> None:
    """Write the metrics that a run leaves behind, keeping the time of an earlier success; raises OSError."""
    registry = last(figures, ending, labels)
    if not ending.succeeded and (before := last_success(path, labels)) is not None:
        registry = with_success(registry, before, labels)
    _replace(path, generate_latest(registry))


def last_success(path: str, labels: Mapping[str, str]) -> float | None:
    """The time of the last success in the file, in seconds since the epoch; None if there is none."""
    # A file that is not ours, or was cut by a crash, has nothing worth keeping.
    with contextlib.suppress(FileNotFoundError, ValueError), open(path, encoding="utf-8") as file:
        for family in text_string_to_metric_families(file.read()):
            for sample in family.samples:
                if sample.name == LAST_SUCCESS and sample.labels == labels:
                    return float(sample.value)
    return None


def _replace(path: str, content: bytes) -> None:
    # Not named *.prom, so that node_exporter does not read it before it is complete.
    number, name = tempfile.mkstemp(prefix=f".{os.path.basename(path)}.", dir=os.path.dirname(path) or ".")
    try:
        with open(number, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(number, MODE)
            os.fsync(number)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
