"""Write docs/commands.md anew, and the last line of each page, which leads to the next one."""

from __future__ import annotations

import argparse
import sys

from release.reference.page import written


def main() -> int:
    """Write them where they belong."""
    argparse.ArgumentParser(prog="release.reference", description=__doc__).parse_args()
    for path, text in written().items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
