"""The command `completion`: prints what makes a shell complete command lines of `realize`."""

from __future__ import annotations

from typing import Final, cast

import click

from realize.cli.commands.summaries import SUMMARIES

_SHELL_NAMES: Final = ("bash", "zsh", "fish")

_COMPLETION_HELP: Final = """Print a script with which a shell completes the command lines of `realize`.

It completes commands and options, files of this machine, and the peers, directories and standing moves that the
configurations name.

\b
Examples:
bash    realize completion bash > ~/.local/share/bash-completion/completions/realize
        (with the package bash-completion; else: echo 'source <(realize completion bash)' >> ~/.bashrc)
zsh     realize completion zsh > DIRECTORY/_realize, a directory of $fpath
fish    realize completion fish > ~/.config/fish/completions/realize.fish

Print it again after each upgrade: it lists the options of the installed version.
"""


@click.command("completion", help=_COMPLETION_HELP, short_help=SUMMARIES["completion"])
@click.argument("shell", type=click.Choice(_SHELL_NAMES))
@click.pass_context
def completion(ctx: click.Context, /, shell: str) -> None:
    """Print the script."""
    from realize.cli.completion.grammar import commands_of
    from realize.cli.completion.scripts import script

    group = cast("click.Group", ctx.find_root().command)
    click.echo(script(shell, commands_of(group)), nl=False)
