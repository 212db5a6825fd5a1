"""Draw the diagrams into docs/diagrams."""

from __future__ import annotations

import argparse
import sys

from release.diagrams.pictures import PICTURES
from release.diagrams.svg import FOLDER, drawn


def main() -> int:
    """Draw all of them anew."""
    argparse.ArgumentParser(prog="release.diagrams", description=__doc__).parse_args()
    FOLDER.mkdir(exist_ok=True)
    for name, picture in PICTURES.items():
        (FOLDER / f"{name}.svg").write_text(drawn(picture), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
