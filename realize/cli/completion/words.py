"""What shells ask for as a command line is typed: peers, directories, standing moves, as the configurations name them.

Next to nothing is imported, for somebody waits at a keyboard; above all no click, no attrs and no Twisted.
So the files are not judged as `realize.config` does it: what cannot be read, or is not as expected, is passed over, and
nothing is ever said of it. Only words that no shell would read in another way are offered.
"""

from __future__ import annotations

import os
import re
import stat
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from realize.places import DAEMON_CONFIG, default_config_path

_SHELL_SAFE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""A name that every shell takes as it is."""

_MAX_CONFIG_BYTES: Final = 1 << 22
_STEERED: Final = ("show", "run", "pause", "resume")
_LIFTED: Final = "unlimited"


class _Known:
    """What is known of peers and of standing moves.

    ``command`` is the content of the configuration of the command, ``daemon`` that of the daemon of this machine.
    """

    def __init__(self, command: Mapping[str, object], daemon: Mapping[str, object]) -> None:
        self._command = command
        self._both = (command, daemon)

    def peers(self) -> set[str]:
        """Those that a location may name."""
        return set(_table(self._command, "peers"))

    def peers_of_daemon(self) -> set[str]:
        """Those whose limits the daemon has."""
        return {name for each in self._both for name in _table(each, "peers")}

    def moves(self) -> set[str]:
        """The standing moves."""
        return {name for each in self._both for name in _table(each, "moves")}

    def directories(self, peer: str) -> set[str]:
        """What the table of a peer, or a standing move, names as a directory there."""
        named = set(_table(_table(_table(self._command, "peers"), peer), "dirs"))
        for each in self._both:
            moves = _table(each, "moves")
            for location in (text for name in moves for text in _locations(_table(moves, name))):
                end, separator, inside = location.partition("::")
                if separator and peer in {end, end.rpartition(":")[0]}:
                    named.add(inside.partition("/")[0])
        return named


def answer(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> bool:
    """Print the words for ``arguments``: the kind, the configuration that the line names, what is typed, what precedes.

    Whatever is wrong with a configuration, there are just no words. False if that is no question of a script.
    """
    if len(arguments) < 3 or arguments[0] not in WORDS_OF:
        return False
    kind, config, typed, *before = arguments
    try:
        known = _Known(_read(_path(config) or default_config_path(environ)), _read(DAEMON_CONFIG))
        sys.stdout.write("".join(f"{each}\n" for each in words(kind, typed, before, known)))
        sys.stdout.flush()
    except Exception:  # noqa: BLE001, S110 -- an error message would end up in the middle of what is being typed
        pass
    return True


def words(kind: str, typed: str, before: Sequence[str], known: _Known) -> list[str]:
    """What may stand where ``typed`` is, sorted, for a kind of `WORDS_OF`; ``before`` are those that precede."""
    return sorted(each for each in WORDS_OF[kind](typed, before, known) if each.startswith(typed))


def _location(typed: str, _before: Sequence[str], known: _Known) -> Iterator[str]:
    """``PEER::``, and what is there when that is typed."""
    end, separator, _ = typed.partition("::")
    if not separator:
        return (f"{each}::" for each in _plain(known.peers()))
    peers = known.peers()
    peer = end if end in peers else end.rpartition(":")[0]
    return (f"{end}::{each}" for each in _plain(known.directories(peer) if peer in peers else ()))


def _target(typed: str, before: Sequence[str], known: _Known) -> Iterator[str]:
    """A peer, or a directory of one."""
    if before:
        return iter(())
    return _location(typed, before, known) if ":" in typed else _plain(known.peers())


def _peer(_typed: str, before: Sequence[str], known: _Known) -> Iterator[str]:
    return iter(()) if before else _plain(known.peers())


def _limited(_typed: str, before: Sequence[str], known: _Known) -> Iterator[str]:
    """A peer and a rate, or one of them."""
    if not before:
        yield from _plain(known.peers())
    if len(before) < 2:
        yield _LIFTED


def _steered(_typed: str, before: Sequence[str], known: _Known) -> Iterator[str]:
    """What to do with a standing move, which, and at which peer."""
    if not before:
        yield from ("list", *_STEERED)
    elif len(before) == 1 and before[0] in _STEERED:
        yield from _plain(known.moves())
        return
    if before == ["list"] or not before or (len(before) == 2 and before[0] in _STEERED):
        yield from _plain(known.peers())


def _scope(typed: str, _before: Sequence[str], known: _Known) -> Iterator[str]:
    """What a limit is for; the name behind ``peer:`` once that is typed."""
    if typed.startswith("peer:"):
        return (f"peer:{each}" for each in _plain(known.peers_of_daemon()))
    return iter(("service", "peer:", "connection:"))


WORDS_OF: Final[Mapping[str, Callable[[str, Sequence[str], _Known], Iterator[str]]]] = {
    "location": _location,
    "target": _target,
    "peer": _peer,
    "limited": _limited,
    "steered": _steered,
    "scope": _scope,
}
"""How to find the words of each kind, by the name that the scripts have for it."""


def _plain(names: Iterator[str] | set[str] | tuple[()]) -> Iterator[str]:
    return (each for each in names if _SHELL_SAFE.fullmatch(each))


def _read(path: str) -> Mapping[str, object]:
    """The content of a configuration; nothing if it cannot be read.  A pipe of that name is not waited for."""
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return {}
            return tomllib.loads(file.read(_MAX_CONFIG_BYTES).decode())
    except (OSError, ValueError, RecursionError):
        return {}


def _path(typed: str) -> str:
    """The path that a word of a command line stands for: as a shell would read it, as far as that is simple."""
    if any(mark in typed for mark in "'\"\\"):
        import shlex

        typed = "".join(shlex.split(typed))
    return os.path.expanduser(typed)


def _table(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The table of that key; an empty one if there is something else."""
    value = content.get(key)
    return value if isinstance(value, dict) else {}


def _locations(move: Mapping[str, object]) -> Iterator[str]:
    """Where files of a standing move come from, and where they go."""
    for value in (move.get("from"), move.get("to")):
        yield from (each for each in (value if isinstance(value, list) else [value]) if isinstance(each, str))
