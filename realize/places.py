"""Where configurations and keys are looked for unless somebody says.

Nothing is imported here but what Python has loaded: shells ask for this at each press of a key.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

DAEMON_CONFIG: Final = "/etc/realize/realized.toml"
"""The configuration file of the daemon unless an option names one."""


def home(environ: Mapping[str, str]) -> str:
    """The home directory of this user; ``~`` if there is none."""
    return environ.get("HOME") or os.path.expanduser("~")


def default_config_path(environ: Mapping[str, str]) -> str:
    """The configuration file of the command unless an option names one: ``REALIZE_CONFIG``, or below the home."""
    return environ.get("REALIZE_CONFIG") or os.path.join(home(environ), ".config", "realize", "realize.toml")


def default_key_path(environ: Mapping[str, str]) -> str:
    """The key file of the command unless an option or the configuration names one; also the default of ``keygen``."""
    return environ.get("REALIZE_KEY") or os.path.join(home(environ), ".config", "realize", "realize.key")
