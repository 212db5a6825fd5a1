"""The help of a command: its options in sections, each under what it is for, and examples behind them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import click

SECTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "Which files to move": (
        "include",
        "exclude",
        "filter_from",
        "files_from",
        "from0",
        "min_age",
        "min_size",
        "max_size",
        "one_file_system",
        "links",
        "order",
    ),
    "What happens to them": (
        "on_conflict",
        "backup_dir",
        "preserve",
        "no_preserve",
        "numeric_ids",
        "best_effort",
        "prune_dirs",
        "dry_run",
    ),
    "Speed and limits": (
        "throttle",
        "throttle_up",
        "throttle_down",
        "compress",
        "jobs",
        "max_duration",
        "grace",
        "max_transfer",
        "no_retry",
        "trust_source",
    ),
    "Output": ("progress", "verbose", "quiet", "json", "manifest", "help"),
    "Configuration and keys": ("config", "key", "peer_key"),
    "Metrics": ("metrics_addr", "metrics_pushgateway", "metrics_textfile", "metrics_job", "metrics_instance"),
    "Log": ("log_level", "log_format", "log_file"),
}
"""The parameters of each section, in the order in which the help shows them; others are in a section of their own."""

_ALL_OTHERS: Final = "Options"


class CommandWithSections(click.Command):
    """A command that shows its options in sections. One that has a few of its own shows these first."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write them, as click does with a single section."""
        for title, options in sections_of(self, ctx).items():
            with formatter.section(title):
                formatter.write_dl([record for each in options if (record := each.get_help_record(ctx)) is not None])


def sections_of(command: click.Command, ctx: click.Context) -> dict[str, list[click.Option]]:
    """The options of ``command`` by section; those that no section names come first."""
    options = {_name(each): each for each in command.get_params(ctx) if isinstance(each, click.Option)}
    named = {title: [options.pop(name) for name in names if name in options] for title, names in SECTIONS.items()}
    return {title: found for title, found in {_ALL_OTHERS: [*options.values()], **named}.items() if found}


def _name(option: click.Option) -> str | None:
    """The name of a parameter. That of `--help` differs between versions of click."""
    return "help" if "--help" in option.opts else option.name


def examples(*lines: str) -> str:
    """The end of a help, for ``epilog``: command lines to copy."""
    return "\n".join(["\b", "Examples:", *(f"  {each}" for each in lines)])
