"""The command `keygen`: makes an identity, or reads one, and prints what the other side has to paste."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from realize.cli.commands.summaries import SUMMARIES
from realize.cli.help_sections import CommandWithSections, examples

if TYPE_CHECKING:
    from realize.keys import PublicKey


@click.command(
    "keygen",
    cls=CommandWithSections,
    short_help=SUMMARIES["keygen"],
    epilog=examples(
        "realize keygen                 once on each machine",
        "realize keygen --show          print the lines to paste again",
    ),
)
@click.argument("file", required=False, metavar="[FILE]")
@click.option("--show", is_flag=True, help="Print these lines for the existing key in FILE, and make no new one.")
def keygen(file: str | None, *, show: bool) -> None:
    """Make an ed25519 key for this machine, and write the private key to FILE.

    It prints the public key, and the lines to paste into the configurations of other machines. FILE gets mode 0600; an
    existing file is never overwritten.  [default: REALIZE_KEY, or ~/.config/realize/realize.key]
    """
    from realize.errors import UsageError
    from realize.keys import generate_identity, load_identity, write_identity
    from realize.places import default_key_path
    from realize.units import display_text

    path = file or default_key_path(os.environ)
    if not file and path.startswith("~"):
        raise UsageError("HOME is not set, and this user has no home directory: name the FILE for the key")
    if show:
        identity = load_identity(path)
    else:
        identity = generate_identity()
        write_identity(path, identity)
        click.echo(f"realize: wrote the private key to {display_text(path)}", err=True)
    click.echo("\n".join(_lines_to_paste(identity.public_key)))


def _lines_to_paste(key: PublicKey) -> list[str]:
    """The public key, and what other machines need to know it by."""
    import socket

    from realize.config.addresses import DEFAULT_PORT
    from realize.pasting import client_lines, client_notes, daemon_lines, if_there, own_name

    peer = own_name()
    return [
        f"# The public key of this machine ({key.fingerprint}):",
        key.base64,
        "",
        "# Paste this into the configuration of each daemon that is to serve this machine",
        *(f"# {note}" for note in client_notes(peer)),
        *client_lines(peer, key),
        "",
        "# Paste this on each machine that runs `realize` against the daemon on this one",
        f"# ({if_there(peer)}):",
        *daemon_lines(peer, f"{socket.gethostname()}:{DEFAULT_PORT}", key.base64),
    ]
