"""Write docs/commands.md anew."""

from __future__ import annotations

import argparse
import sys

from release.reference.page import PAGE, commands


def main() -> int:
    """Write it where it belongs."""
    argparse.ArgumentParser(prog="release.reference", description=__doc__).parse_args()
    PAGE.write_text(commands(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
