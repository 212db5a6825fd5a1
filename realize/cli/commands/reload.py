"""The command `reload`: have the daemon of this machine read its configuration again."""

from __future__ import annotations

import click

from realize.cli.commands.summaries import SUMMARIES
from realize.cli.option_fields import collects
from realize.cli.options import Access, LogOptions


@click.command("reload", short_help=SUMMARIES["reload"])
@click.option(
    "--config",
    metavar="FILE",
    help="The configuration that says where the control socket is, if that is not at its usual place  "
    "[default: ~/.config/realize/realize.toml; environment: REALIZE_CONFIG]",
)
@collects(LogOptions, "log", prefix="log_")
@click.option("--json", is_flag=True, help="Write one JSON object.")
def reload(*, config: str | None, log: LogOptions, json: bool) -> int:
    """Have the daemon of this machine read its configuration again; for its own user and for root.

    What has changed is printed, and what needs a restart. If the configuration is wrong, the former one stays in force,
    and the exit code is 2.
    """
    from realize.cli.commands.reload_run import run_reload

    return run_reload(Access(config=config), json=json, log=log)
