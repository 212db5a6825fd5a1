"""Writes metrics where node_exporter's textfile collector reads them.

A textfile is replaced as a whole, so what must outlive a run without success is taken over from the file before.
A reader sees the old file or the new one, never a part; the file can be read by everybody, whatever the umask, because
node_exporter runs as somebody else.
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
"""node_exporter runs as somebody else."""


def write_textfile(path: str, figures: Figures, ending: Ending, labels: Mapping[str, str]) -> None:
    """Write what the run leaves behind, and when a run before it had success if this one had none; `OSError`."""
    registry = last(figures, ending, labels)
    if not ending.succeeded and (before := last_success(path, labels)) is not None:
        registry = with_success(registry, before, labels)
    _replace(path, generate_latest(registry))


def last_success(path: str, labels: Mapping[str, str]) -> float | None:
    """The last success that the file tells of, in seconds since the epoch; None if it does not, or is none."""
    # Not one of ours, or cut by a crash: there is nothing to be kept of it.
    with contextlib.suppress(FileNotFoundError, ValueError), open(path, encoding="utf-8") as file:
        for family in text_string_to_metric_families(file.read()):
            for sample in family.samples:
                if sample.name == LAST_SUCCESS and sample.labels == labels:
                    return float(sample.value)
    return None


def _replace(path: str, content: bytes) -> None:
    # Not *.prom, so that node_exporter does not read it before it is whole.
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
