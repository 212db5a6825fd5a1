"""Configurations that we ship, read as a daemon reads them."""

from __future__ import annotations

import re
from pathlib import Path

from realize.config import Config, read_config
from realize.keys import generate_identity, write_identity


def read_daemon_config(folder: Path, text: str) -> Config:
    """A configuration for a daemon; only its directory is another one, and its key is made."""
    write_identity(str(folder / "realized.key"), generate_identity())
    path = folder / "realized.toml"
    path.write_text(re.sub(r'(?m)^path = ".*"$', f'path = "{folder}"', text))
    return read_config(str(path), for_daemon=True)
