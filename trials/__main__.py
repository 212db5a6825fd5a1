"""Boot two Debian systems, install the Debian package in both, and try what an operator relies on.

Needs root on Debian with debootstrap and systemd-container. Prints a line for each check; the exit code is 1 if one
failed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from trials.checks import FIRST, THEN
from trials.commands import Failed, output
from trials.machines import PROGRAMS, Machine, base
from trials.site import Site


def main() -> int:
    """Parse the command line, and run all checks."""
    parser = argparse.ArgumentParser(prog="trials", description=__doc__)
    parser.add_argument("package", type=Path, help="the Debian package, as `make deb` makes it")
    parser.add_argument(
        "--cache", type=Path, default=Path("/var/tmp/realize-try"), help="where the downloaded system stays"
    )
    parser.add_argument("--files", type=int, default=100_000, help="how many files the audit trail has to show")
    options = parser.parse_args()
    try:
        _check_tools()
        with contextlib.ExitStack() as stack:
            options.cache.mkdir(parents=True, exist_ok=True)
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="machines-", dir=options.cache)))
            later = _later(options.package, folder)
            origin = base(options.cache)
            camera, nas = (
                stack.enter_context(Machine(name, number, origin, folder))
                for number, name in enumerate(("camera", "nas"), 1)
            )
            return _try_all(Site(camera, nas, options.package, later, Path.cwd(), origin, folder, options.files))
    except Failed as error:
        print(f"trials: error: {error}", file=sys.stderr)
        return 1


def _check_tools() -> None:
    if os.geteuid():
        raise Failed("only root can boot systems: sudo make try-systemd")
    for program, package in PROGRAMS.items():
        if shutil.which(program) is None:
            raise Failed(f"{program} is missing: apt-get install {package}")


def _later(package: Path, folder: Path) -> Path:
    """The same package with a version that is newer, and another default configuration, for an upgrade."""
    tree = folder / "later"
    output("dpkg-deb", "--raw-extract", package, tree)
    control = tree / "DEBIAN" / "control"
    version = output("dpkg-deb", "--field", package, "Version").strip()
    control.write_text(control.read_text().replace(f"\nVersion: {version}\n", f"\nVersion: {version}+later\n"))
    with (tree / "usr" / "share" / "realize" / "realized.toml").open("a") as default:
        default.write("# A line more.\n")
    made = folder / "realize_later.deb"
    output("dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", tree, made)
    shutil.rmtree(tree)
    return made


def _try_all(site: Site) -> int:
    failed, checks = 0, (*FIRST, *THEN)
    for check in checks:
        begun = time.monotonic()
        try:
            check(site)
        except Failed as error:
            failed += 1
            said = f"FAIL {check.__name__}: {error}"
        else:
            said = f"ok   {check.__name__}"
        print(f"{said} ({time.monotonic() - begun:.1f} s)", flush=True)
        if failed and check in FIRST:
            print("the other checks were left out")
            return 1
    print(f"{len(checks) - failed} of {len(checks)} checks passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
