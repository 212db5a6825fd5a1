"""What is another one in one configuration than in another, by the keys of the file; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from realize.config.problems import toml_key
from realize.config.values import Config

_TABLES_OF_NAMES: Final = ("directories", "peers", "moves")
"""Attributes whose keys the administrator has chosen, so that each is told of by itself."""


def changed_keys(before: Config, after: Config) -> dict[str, str]:
    """Each key that differs, in the order of the alphabet, and whether it was ``added``, ``removed`` or ``changed``."""
    changes: dict[str, str] = {}
    for attribute in attrs.fields(Config):
        old, new = getattr(before, attribute.name), getattr(after, attribute.name)
        key = toml_key(attribute.name)
        if attribute.name in _TABLES_OF_NAMES:
            changes |= {f"{key}.{name}": change for name, change in _changed_names(old, new).items()}
        elif old != new:
            changes[key] = "changed"
    return dict(sorted(changes.items()))


def _changed_names(before: Mapping[str, object], after: Mapping[str, object]) -> dict[str, str]:
    return {
        **{name: "removed" for name in before if name not in after},
        **{name: "added" for name in after if name not in before},
        **{name: "changed" for name in after if name in before and before[name] != after[name]},
    }
