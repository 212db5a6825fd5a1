"""The command `moves`: show or steer the standing moves of a running daemon."""

from __future__ import annotations

from typing import Final

import click

from realize.cli.commands.summaries import SUMMARIES
from realize.cli.help_sections import CommandWithSections
from realize.cli.options import Access, LogOptions, remote_options
from realize.errors import UsageError

STEERING: Final = ("run", "pause", "resume")
"""What can be done with a move."""

_WAYS_TO_CALL: Final = "realize moves [list] [PEER], or realize moves show|run|pause|resume NAME [PEER]"


_MOVES_HELP: Final = """List the standing moves of a daemon, show one in detail, or run, pause or resume one.

PEER is a name from the configuration, or HOST or HOST:PORT; the daemon there must have admin = true for this machine.
Without PEER, ask the daemon on this machine; only root and the user of the daemon may do that.
If a peer is called list, show, run, pause or resume, write `list PEER`.

\b
Examples:
  realize moves                list them: what waits, what was moved, what went wrong
  realize moves show NAME      show one in detail
  realize moves run NAME       start a run now
  realize moves pause NAME     stop its run cleanly, and start no other, even after a restart
  realize moves resume NAME    end the pause
"""


@click.command("moves", cls=CommandWithSections, help=_MOVES_HELP, short_help=SUMMARIES["moves"])
@click.argument("words", nargs=-1, metavar="[list] [PEER] | show|run|pause|resume NAME [PEER]")
@remote_options
@click.option("--json", is_flag=True, help="Print one JSON object.")
def moves(words: tuple[str, ...], *, access: Access, log: LogOptions, json: bool) -> int:
    """Say what to do, and do it."""
    from realize.cli.commands.moves_run import run_moves

    action, name, peer = parsed(words)
    return run_moves(peer, access, action, name, json=json, log=log)


def parsed(words: tuple[str, ...]) -> tuple[str, str | None, str | None]:
    """What to do, with which move, and of which peer; raises `UsageError`."""
    named = words and words[0] in {"list", "show", *STEERING}
    action, rest = (words[0], words[1:]) if named else ("list", words)
    name = None
    if action != "list":
        if not rest:
            raise UsageError(f"{action}: the name of a move is missing: {_WAYS_TO_CALL}")
        name, rest = rest[0], rest[1:]
    if len(rest) > 1:
        raise UsageError(f"{' '.join(words)}: too many words: {_WAYS_TO_CALL}")
    return action, name, rest[0] if rest else None
