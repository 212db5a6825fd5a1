"""Modules of libraries whose patterns are compiled when they are used, not when the module is loaded.

`cryptography.x509.name` reads names as RFC 4514 writes them by a pattern with all of Unicode in it, which takes a
twelfth of a short run to compile; a command makes such a name, and reads none.
`tomllib` has three for numbers, dates and times, which a configuration of texts and tables does not need.
As `realize.cli.stand_ins`, this is for our own commands alone.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any, Final

MODULES: Final = ("cryptography.x509.name", "tomllib._re")
"""Those of which it is known that they only call methods of their patterns."""


def compile_when_used() -> None:
    """Load `MODULES` like that from now on; what is loaded already is left alone."""
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)


class _Finder:
    """Finds them where they are, with another loader."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in MODULES:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    """Loads a module while `re.compile` makes a `_Pattern`: at the start, in the main thread, before others run."""

    def exec_module(self, module: ModuleType) -> None:
        at_once, re.compile = re.compile, _Pattern  # type: ignore[assignment]
        try:
            super().exec_module(module)
        finally:
            re.compile = at_once


class _Pattern:
    """A pattern that is compiled when it is first asked for something; `re` keeps what it has compiled."""

    def __init__(self, pattern: str, flags: int = 0) -> None:
        self._given = (pattern, flags)

    def __getattr__(self, name: str) -> Any:
        return getattr(re.compile(*self._given), name)
