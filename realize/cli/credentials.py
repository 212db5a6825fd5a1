"""Our identity and the peers we know, as the command line says where they are."""

from __future__ import annotations

import click

from realize.cli.options import Access
from realize.runs.credentials import FileCredentials


def credentials_of(access: Access) -> FileCredentials:
    """What the options name; warns on stderr if other users could change the configuration.

    Raises what `FileCredentials` raises.
    """
    return FileCredentials(
        access.config, _warn, key_file=access.key, peer_key=access.peer_key, peer_key_name="--peer-key"
    )


def _warn(sentence: str) -> None:
    click.echo(f"realize: warning: {sentence}", err=True)
