"""The options by which `move` and `copy` are told where the metrics of a run go.

What they say is judged before anything is done; nothing of Prometheus is loaded unless one of them is given.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click
from attrs import frozen

from realize.by_value import ByValue
from realize.cli.option_fields import option
from realize.errors import RealizeError
from realize.runs.options import JOB, MetricsTargets

if TYPE_CHECKING:
    from realize.telemetry.metrics.pushing import Gateway


@frozen(eq=False, repr=False)
class MetricsOptions(ByValue):
    """Where metrics are to go, as the command line says it; `metrics_targets` judges it."""

    addr: str | None = option(otherwise=None, metavar="HOST:PORT", help="Serve metrics at this address during the run.")
    pushgateway: str | None = option(
        otherwise=None,
        metavar="URL",
        envvar="REALIZE_METRICS_PUSHGATEWAY",
        help="Push metrics to this Prometheus Pushgateway: at the start, every 15 s, and at the end"
        "  [environment: REALIZE_METRICS_PUSHGATEWAY]",
    )
    textfile: str | None = option(
        otherwise=None,
        metavar="FILE",
        help="At the end, write metrics to this file for the textfile collector of node_exporter.",
    )
    job: str | None = option(
        otherwise=None,
        metavar="NAME",
        help=f"Push as this job; in a textfile, the label task  [default: {JOB}]",
    )
    instance: str | None = option(
        otherwise=None, metavar="NAME", help="Push as this instance  [default: the host name]"
    )


def metrics_targets(ctx: click.Context, given: MetricsOptions) -> MetricsTargets:
    """What the options ask for; `click.UsageError` if it makes no sense, or cannot come to a good end."""
    if given.instance is not None and given.pushgateway is None:
        raise click.UsageError("--metrics-instance needs --metrics-pushgateway", ctx)
    if given.job is not None and given.pushgateway is None and given.textfile is None:
        raise click.UsageError("--metrics-job needs --metrics-pushgateway or --metrics-textfile", ctx)
    job = JOB if given.job is None else given.job
    if given.textfile is not None:
        _check_file(ctx, given.textfile, job)
    return MetricsTargets(
        endpoint=None if given.addr is None else _endpoint(ctx, given.addr),
        gateway=None if given.pushgateway is None else _gateway(ctx, given.pushgateway, job, given.instance),
        textfile=given.textfile,
        job=job,
    )


def _endpoint(ctx: click.Context, text: str) -> str:
    from realize.config.addresses import metrics_endpoint

    try:
        return metrics_endpoint(text)
    except RealizeError as error:
        raise click.UsageError(f"--metrics-addr: {error}", ctx) from error


def _gateway(ctx: click.Context, url: str, job: str, instance: str | None) -> Gateway:
    import socket

    from realize.telemetry.metrics.pushing import parse_gateway

    try:
        return parse_gateway(url, job, socket.gethostname() if instance is None else instance)
    except RealizeError as error:
        raise click.UsageError(f"--metrics-pushgateway: {error}", ctx) from error


def _check_file(ctx: click.Context, file: str, job: str) -> None:
    from realize.units import display_text, quoted

    folder = os.path.dirname(file) or "."
    shown = display_text(file)
    if not job.strip() or not job.isprintable():
        raise click.UsageError(f"--metrics-job: {quoted(job)} is no name for a job", ctx)
    if not os.path.isdir(folder):
        raise click.UsageError(f"--metrics-textfile {shown}: {display_text(folder)} is not a directory", ctx)
    if os.path.lexists(file) and not os.path.isfile(file):
        what = "a directory" if os.path.isdir(file) else "no regular file"
        raise click.UsageError(f"--metrics-textfile {shown}: it is {what}, and must not be replaced", ctx)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise click.UsageError(f"--metrics-textfile {shown}: cannot write to the directory {display_text(folder)}", ctx)
