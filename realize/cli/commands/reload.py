"""The command `reload`: have the daemon of this machine read its configuration again."""

from __future__ import annotations

import click

from realize.cli.commands.summaries import SUMMARIES
from realize.cli.help_sections import CommandWithSections, examples
from realize.cli.option_fields import collects
from realize.cli.options import Access, LogOptions


@click.command(
    "reload",
    cls=CommandWithSections,
    short_help=SUMMARIES["reload"],
    epilog=examples(
        "realize reload",
    ),
)
@click.option(
    "--config",
    metavar="FILE",
    help="Find the control socket where this configuration says, if it is not at its usual place  "
    "[default: ~/.config/realize/realize.toml; environment: REALIZE_CONFIG]",
)
@collects(LogOptions, "log", prefix="log_")
@click.option("--json", is_flag=True, help="Print one JSON object.")
def reload(*, config: str | None, log: LogOptions, json: bool) -> int:
    """Make the daemon on this machine reread its configuration. Only root and the user of the daemon may do that.

    It prints what has changed, and which changes need a restart. If the new configuration is wrong, the daemon keeps
    the old one, and the exit code is 2.
    """
    from realize.cli.commands.reload_run import run_reload

    return run_reload(Access(config=config), json=json, log=log)
