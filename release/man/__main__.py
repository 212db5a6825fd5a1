"""Write the man pages into a folder, as man(1) looks for them: ``DIR/man1/realize.1`` and so on."""

from __future__ import annotations

import argparse
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from release.man.pages import Pages

ROOT = Path(__file__).parent.parent.parent


def main() -> int:
    """Write them; the date is that of ``SOURCE_DATE_EPOCH``, or today."""
    parser = argparse.ArgumentParser(prog="release.man", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR", help="is made if it is missing")
    folder: Path = parser.parse_args().folder
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    day = datetime.now(UTC) if epoch is None else datetime.fromtimestamp(int(epoch), UTC)
    for name, content in Pages(ROOT / "docs", day.date().isoformat()).all().items():
        path = folder / f"man{name.rpartition('.')[2]}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
