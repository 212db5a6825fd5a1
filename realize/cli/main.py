"""The entry point: finds the command, and turns every expected error into one sentence and an exit code."""

from __future__ import annotations

import contextlib
import io
import math
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping, MutableMapping
from importlib import import_module
from typing import Final, NoReturn, cast

import click
from click.exceptions import NoArgsIsHelpError

from realize import __version__
from realize.cli.commands.summaries import NOT_SOURCES_KEY, SUMMARIES
from realize.cli.exit_codes import command_exit_code
from realize.errors import RealizeError
from realize.exit_codes import ExitCode
from realize.process import discard_output, hold_standard_streams

MOST_AFTER_A_SIGNAL_S: Final = 5.0
"""Seconds that threads which hang are waited for after a signal has ended the rest, as after a time limit."""


class CommandModules(Mapping[str, click.Command]):
    """All commands by name; the module of each is loaded when it is asked for."""

    def __getitem__(self, name: str) -> click.Command:
        if name not in SUMMARIES:
            raise KeyError(name)
        module = "move" if name == "copy" else name
        command: click.Command = getattr(import_module(f"realize.cli.commands.{module}"), name)
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(SUMMARIES)

    def __len__(self) -> int:
        return len(SUMMARIES)

    def __contains__(self, name: object) -> bool:
        return name in SUMMARIES


class Commands(click.Group):
    """A group in which the word `move` may be left out."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List them without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, SUMMARIES[name]) for name in self.list_commands(ctx)])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Insert `move` unless a command, or an option of the group itself, comes first."""
        own = {option for parameter in self.get_params(ctx) for option in parameter.opts}
        if args and args[0] not in own and args[0] not in self.commands:
            args = ["move", *args]
            ctx.meta[NOT_SOURCES_KEY] = frozenset(self.commands)
        return super().parse_args(ctx, args)


_HELP = """Move files between machines: copy a file, verify it, write it to stable storage, then remove the original.

\b
realize [OPTIONS] SRC... DST    is short for
realize move [OPTIONS] SRC... DST

SRC and DST are local paths, or PEER::DIR/PATH: DIR is a directory that the daemon at PEER serves. PEER is a name from
the configuration, or HOST or HOST:PORT. realize://HOST:PORT/DIR/PATH means the same.
"""

_EXIT_CODES = "\n".join(f"  {code:<3} {code.meaning}" for code in ExitCode)
_EPILOG = f"""\b
Examples:
  realize check nas::inbox            test the connection and the rights
  realize /store/camera nas::inbox    move files to a daemon
  realize status nas                  see what that daemon is doing

\b
Exit codes:
{_EXIT_CODES}

`realize COMMAND --help` shows the options of a command. README.md and docs/usage.md in the sources say more.
"""


@click.group(
    cls=Commands,
    help=_HELP,
    options_metavar="",
    subcommand_metavar="[COMMAND] [OPTIONS] ARGS...",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    commands=cast("MutableMapping[str, click.Command]", CommandModules()),
    epilog=_EPILOG,
)
@click.version_option(__version__, "--version", prog_name="realize", message="%(prog)s %(version)s")
def realize() -> None:
    """The group of all commands; `run` handles their errors."""
    from realize.cli.stand_ins import load_twisted

    load_twisted()


def main() -> NoReturn:
    """Run the command line of this process and exit.

    At once when threads have ended that may still have something to do, or hang after a signal: the log is closed,
    output is flushed, and Python would take 40 ms more to take apart what it has loaded.
    """
    code = run()
    with contextlib.suppress(KeyboardInterrupt):
        _wait_for_threads(MOST_AFTER_A_SIGNAL_S if code == ExitCode.INTERRUPTED else math.inf)
    os._exit(_settled(code))


def _wait_for_threads(most_s: float) -> None:
    """Wait until all have ended that are no daemons, for so many seconds at most."""
    deadline = time.monotonic() + most_s
    while time.monotonic() < deadline and (
        others := [each for each in threading.enumerate() if each is not threading.current_thread() and not each.daemon]
    ):
        # Not without end: an interrupt that comes in the instant before the wait begins is noticed when it ends.
        others[0].join(0.5)


def run() -> int:
    """Run the command line of this process, and return the exit code."""
    hold_standard_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = realize.main(prog_name="realize", standalone_mode=False)
    except (Exception, KeyboardInterrupt) as error:
        if not _explained(error):
            raise
        code = command_exit_code(error)
    return code if isinstance(code, int) else ExitCode.DONE


def _explained(error: BaseException) -> bool:
    """Say on stderr what ended the command, unless whoever ended it knows; False if that is a fault of ours."""
    match error:
        case RealizeError():
            _complain(str(error))
        case NoArgsIsHelpError():
            error.show()
        case click.ClickException():
            _complain(error.format_message().rstrip("."))
            context = getattr(error, "ctx", None)
            if context is not None:
                click.echo(f"Try '{context.command_path} --help'.", err=True)
        case click.Abort() | KeyboardInterrupt():
            pass
        case BrokenPipeError():
            pass  # whoever read our results has had enough
        case MemoryError():
            _complain("not enough memory")
        case OSError():
            sentence = _sentence(error)
            if sentence is None:
                return False
            _complain(sentence)
        case _:
            return False
    return True


def _sentence(error: OSError) -> str | None:
    """What is wrong around this process, such as a full disk behind stdout; None if the error is a fault of ours."""
    import traceback

    try:
        os.getcwd()
    except OSError as gone:
        return f"the working directory: {gone.strerror}; change to one that exists"
    if any(frame.f_code is click.echo.__code__ for frame, _ in traceback.walk_tb(error.__traceback__)):
        return f"cannot write output: {error.strerror}"
    return None


def _complain(sentence: str) -> None:
    with contextlib.suppress(OSError):
        click.echo(f"realize: error: {sentence}", err=True)


def _settled(code: int) -> int:
    """Flush stdout and stderr, and return the exit code, which shows lost output.

    Output left in a buffer by a closed pipe is dropped, or Python would complain of it at exit; other losses are
    errors of ours.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            discard_output(stream)
            if stream is sys.stdout and not isinstance(error, BrokenPipeError):
                _complain(f"cannot write output: {error.strerror}")
                code = code or ExitCode.FAILED
    return code


if __name__ == "__main__":
    main()
