"""Make a release of what is checked out: commit, tag, files to publish, tried before any of it stays; never a push."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from release.deb import build_deb, check_tools
from release.text import Refused, check_version, dated, tag_of, version_in, with_version
from release.trial import run, try_deb, try_wheel

MODULE = "realize/__init__.py"
CHANGELOG = "CHANGELOG.md"


def main() -> int:
    """Parse the command line, and say in one sentence what is in the way."""
    parser = argparse.ArgumentParser(prog="release", description=__doc__)
    parser.add_argument("version", help="such as 1.2.3 or 1.2.3rc1")
    parser.add_argument("--check", action="store_true", help="only look whether a release could be made")
    options = parser.parse_args()
    root = Path()
    try:
        check(root, options.version)
        if not options.check:
            release(root, options.version)
    except Refused as error:
        sentence = str(error)
    except OSError as error:
        sentence = f"{error.filename}: {error.strerror}"
    else:
        return 0
    print(f"release: error: {sentence}", file=sys.stderr)
    return 1


def check(root: Path, version: str) -> None:
    """Raise `Refused` if anything stands against a release of that version."""
    check_tools()
    present = version_in((root / MODULE).read_text())
    check_version(version, present, run("git", "tag", "--list", "v*", cwd=root).split())
    dated((root / CHANGELOG).read_text(), version, datetime.now(UTC).date())
    if run("git", "status", "--porcelain", cwd=root):
        raise Refused("the working tree has changes that are not committed: commit them, or take them away")
    if run("git", "rev-parse", "--abbrev-ref", "HEAD", cwd=root) == "HEAD\n":
        raise Refused("no branch is checked out, so the commit of the release would be lost")


def release(root: Path, version: str) -> None:
    """Build and try a commit of its own beside the checkout; only if it is good, the branch and a tag lead to it."""
    tag = tag_of(version)
    with tempfile.TemporaryDirectory(prefix="release-") as name:
        folder = Path(name)
        tree, built = folder / "tree", folder / "dist"
        run("git", "worktree", "add", "--quiet", "--detach", tree, cwd=root)
        try:
            commit = _commit(tree, version)
            print(f"building {tag} ...", flush=True)
            run(sys.executable, "-m", "build", "--outdir", built, tree, cwd=folder)
            (wheel,) = built.glob("*.whl")
            print(f"trying {wheel.name} in an empty environment ...", flush=True)
            try_wheel(wheel, version, folder)
            print("building the Debian package ...", flush=True)
            try_deb(build_deb(tree, wheel, built), version, folder)
        finally:
            run("git", "worktree", "remove", "--force", tree, cwd=root)
        run("git", "merge", "--quiet", "--ff-only", commit, cwd=root)
        run("git", "tag", "--annotate", "--message", f"Realize {version}", tag, commit, cwd=root)
        shutil.copytree(built, root / "dist", dirs_exist_ok=True)
        names = ", ".join(f"dist/{each.name}" for each in sorted(built.iterdir()))
    print(f"{tag} is committed and tagged here; the files are {names}.")
    print("Nothing was pushed. To publish: git push --follow-tags, then upload the files.")


def _commit(tree: Path, version: str) -> str:
    """Commit the version and the date of the changelog; what the commit is called."""
    module, changelog = tree / MODULE, tree / CHANGELOG
    module.write_text(with_version(module.read_text(), version))
    changelog.write_text(dated(changelog.read_text(), version, datetime.now(UTC).date()))
    # The hooks of a checkout need its .venv, which is not here, and have seen all that this commit does not change.
    run("git", "commit", "--quiet", "--no-verify", "--all", "--message", f"release: {version}", cwd=tree)
    return run("git", "rev-parse", "HEAD", cwd=tree).strip()


if __name__ == "__main__":
    sys.exit(main())
