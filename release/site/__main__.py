"""Build the site into a folder; a link or an anchor that leads nowhere is an error."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sphinx.cmd.build import build_main

from release.site.runbooks import missing_runbooks

ROOT = Path(__file__).parent.parent.parent
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"


def main() -> int:
    """Build it, and look whether the alerts lead to where they say."""
    parser = argparse.ArgumentParser(prog="release.site", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR", help="is made if it is missing")
    folder: Path = parser.parse_args().folder
    strict = ["--fail-on-warning", "--quiet", "--jobs", "auto"]
    places = ["--conf-dir", str(Path(__file__).parent), "--doctree-dir", str(folder / ".doctrees")]
    code: int = build_main([*strict, *places, str(ROOT), str(folder)])
    if code:
        return code
    page = folder / "docs" / "operations.html"
    missing = missing_runbooks(ALERTS.read_text(encoding="utf-8"), page.read_text(encoding="utf-8"))
    for each in missing:
        print(f"{ALERTS.relative_to(ROOT)}: the site has no operations.html#{each}", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
