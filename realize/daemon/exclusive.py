"""That a directory is served once in this process: two services on it would promise the same room twice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from realize.config import DirectoryConfig
from realize.config.problems import config_error
from realize.daemon.looks import FoundDirectory
from realize.fs.tree import Inode
from realize.units import display_text

_SERVED_BY: Final[dict[Inode, ExclusiveDirectories]] = {}
"""Which service has each directory; the file system is of the process, so this is as well."""


class ExclusiveDirectories:
    """The directories that one service has for itself."""

    def take(self, found: Mapping[str, FoundDirectory], directories: Mapping[str, DirectoryConfig]) -> None:
        """Take those that were found; raises `ConfigError`, and takes none, if another service has one of them."""
        sentence = "another service in this process serves {}; expected a directory that no other one does"
        problems = [
            (("dirs", name, "path"), sentence.format(display_text(directories[name].path)))
            for name, each in found.items()
            if _SERVED_BY.get(each.identity, self) is not self
        ]
        if problems:
            raise config_error(*problems)
        _SERVED_BY.update({each.identity: self for each in found.values()})

    def keep(self, inodes: Iterable[Inode]) -> None:
        """Give up all but these."""
        kept = set(inodes)
        for inode in [inode for inode, owner in _SERVED_BY.items() if owner is self and inode not in kept]:
            del _SERVED_BY[inode]
