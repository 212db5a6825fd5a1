"""The Debian package: ``make deb``, and a part of each release; see ``docs/releasing.md``.

A virtual environment for ``/opt/realize`` is made in a scratch directory, with the wheel of Realize and with what
``release/pins.txt`` names; debhelper packs it with ``release/debian`` and ``deploy``. Two builds of the same commit are
the same file, byte by byte.
"""

from __future__ import annotations

import csv
import os
import platform
import re
import shutil
import sys
import tempfile
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Final

from release.text import Refused, deb_version, version_in
from release.trial import run, try_deb

PREFIX: Final = Path("/opt/realize")
"""Where the package has its environment; scripts in it begin with this path."""

PYTHON: Final = "/usr/bin/python3"
"""Debian's own: the package depends on it."""

NEEDED: Final = {"dpkg-buildpackage": "dpkg-dev", "dh": "debhelper", PYTHON: "python3-venv"}
"""Programs that a build needs, and their packages."""

KEPT: Final = ("realize", "twistd")
"""Commands that stay in the environment; those that dependencies bring are nothing to operators."""

WITHOUT_WHEEL: Final = ("oncalendar",)
"""Dependencies that are published as sources only; they are pure Python."""

COMPLETION: Final = {
    "bash": "bash-completion/completions/realize",
    "zsh": "zsh/vendor-completions/_realize",
    "fish": "fish/vendor_completions.d/realize.fish",
}
"""Where each shell finds how to complete a command, below ``/usr/share``."""

_NOBODYS: Final = ("PYTHON", "VIRTUAL_ENV", "REALIZE", "DEB_", "DH_")
_PLUGIN_AGE_S: Final = 2


def main() -> int:
    """Build wheel and package of this checkout as it is, into ``dist/``."""
    root = Path.cwd()
    try:
        check_tools()
        with tempfile.TemporaryDirectory(prefix="deb-") as name:
            run(sys.executable, "-m", "build", "--outdir", name, root.resolve(), cwd=Path(name))
            (wheel,) = Path(name).glob("*.whl")
            package = build_deb(root, wheel, root / "dist")
            try_deb(package.resolve(), version_in((root / "realize" / "__init__.py").read_text()), Path(name))
    except Refused as error:
        print(f"deb: error: {error}", file=sys.stderr)
        return 1
    print(package)
    return 0


def check_tools() -> None:
    """Raise `Refused` if a program that a build needs is not here."""
    for program, package in NEEDED.items():
        if shutil.which(program) is None:
            raise Refused(f"{program} is missing, and the Debian package needs it: apt-get install {package}")


def build_deb(tree: Path, wheel: Path, out: Path) -> Path:
    """Make the package of a checkout and the wheel of it, put it into ``out``, and return where it is.

    It is as old as the last commit, so that it does not depend on when it is made. Raises `Refused`.
    """
    check_tools()
    version = version_in((tree / "realize" / "__init__.py").read_text())
    epoch = int(run("git", "log", "-1", "--format=%ct", cwd=tree))
    with tempfile.TemporaryDirectory(prefix="deb-") as name:
        source = Path(name) / "realize"
        shutil.copytree(tree / "release" / "debian", source / "debian")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(_NOBODYS)}
        environment |= {"SOURCE_DATE_EPOCH": str(epoch), "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0"}
        stage = source / "stage"
        python = _environment(stage, tree, wheel, epoch, environment)
        _files(stage, source / "debian", tree)
        _completion(stage, environment)
        _man_pages(stage, tree, environment)
        system = platform.freedesktop_os_release()
        _changelog(source / "debian", deb_version(version, system["ID"], system.get("VERSION_ID", "")), epoch)
        environment["PYTHON_PACKAGE"] = python
        run("dpkg-buildpackage", "--build=binary", "--unsigned-changes", cwd=source, environment=environment)
        (built,) = source.parent.glob("*.deb")
        out.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(built, out))


def _environment(stage: Path, tree: Path, wheel: Path, epoch: int, environment: dict[str, str]) -> str:
    """Make the environment below ``stage``; the package of the Python that it is for."""
    place = stage / PREFIX.relative_to("/")
    # By the name that has its minor version: the other one leads elsewhere after an upgrade of Debian.
    run(os.path.realpath(PYTHON), "-m", "venv", place, cwd=stage.parent, environment=environment)
    python = place / "bin" / "python3"
    pip: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    pins = tree / "release" / "pins.txt"
    wheels = ("--only-binary=:all:", f"--no-binary={','.join(WITHOUT_WHEEL)}")
    building = {**environment, "PIP_CONSTRAINT": str(tree / "release" / "build-pins.txt")}
    run(*pip, *wheels, "--require-hashes", "--requirement", pins, cwd=stage, environment=building)
    run(*pip, "--no-deps", "--no-index", wheel.resolve(), cwd=stage, environment=environment)
    run(python, "-m", "pip", "check", cwd=stage, environment=environment)
    run(python, "-m", "pip", "uninstall", "--quiet", "--yes", "setuptools", "pip", cwd=stage, environment=environment)
    _tidy(place)
    (packages,) = place.glob("lib/python3.*/site-packages")
    # Nobody but root may write there, and the daemon would say so each time that it starts.
    noting = "from twisted import plugin; list(plugin.getPlugins(plugin.IPlugin))"
    run(python, "-c", noting, cwd=stage, environment=environment)
    for cached in packages.rglob("__pycache__"):
        shutil.rmtree(cached)
    for path in packages.rglob("*"):
        # The list of plugins counts as current only if it is younger than they.
        age = 0 if path.name == "dropin.cache" else _PLUGIN_AGE_S
        os.utime(path, (epoch - age, epoch - age), follow_symlinks=False)
    compiled = ("-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "-s", stage, "-p", "/", packages)
    run(python, *compiled, cwd=stage, environment=environment)
    return packages.parent.name


def _tidy(place: Path) -> None:
    """Keep those commands that serve somebody, as if the environment had been made where it will be."""
    for script in (place / "bin").iterdir():
        if script.name in KEPT:
            _, _, rest = script.read_text().partition("\n")
            script.write_text(f"#!{PREFIX}/bin/python3\n{rest}")
        elif not script.name.startswith("python"):
            script.unlink()
    settings = place / "pyvenv.cfg"
    settings.write_text(re.sub(r"^command = .*\n", "", settings.read_text(), flags=re.MULTILINE))
    for name in ("include", "share"):
        shutil.rmtree(place / name, ignore_errors=True)
    # What an installer has noted of the directory where the wheel was.
    for note in place.glob("lib/python3.*/site-packages/realize-*.dist-info/direct_url.json"):
        note.unlink()
    for record in place.glob("lib/python3.*/site-packages/*.dist-info/RECORD"):
        _correct(record)


def _correct(record: Path) -> None:
    """Take out of a list of installed files what is not there any more, and the digests of changed scripts."""
    with record.open(newline="") as file:
        rows = [row for row in csv.reader(file) if (record.parent.parent / row[0]).exists()]
    with record.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([row[0], "", ""] if row[0].startswith("../") else row for row in rows)


def _files(stage: Path, debian: Path, tree: Path) -> None:
    """Put what is no Python where the package has it."""
    (stage / "usr" / "bin").mkdir(parents=True)
    (stage / "usr" / "bin" / "realize").symlink_to(PREFIX / "bin" / "realize")
    units = sorted((tree / "deploy" / "systemd").iterdir())
    put = {
        stage / "usr" / "sbin" / "realized": (debian / "realized.sh", 0o755),
        stage / "usr" / "lib" / "sysusers.d" / "realize.conf": (debian / "sysusers.conf", 0o644),
        stage / "usr" / "share" / "realize" / "realized.toml": (debian / "realized.toml", 0o644),
        stage / "usr" / "share" / "realize" / "realize.toml": (debian / "realize.toml", 0o644),
        debian / "realize.realized.logrotate": (tree / "deploy" / "logrotate" / "realized", 0o644),
    }
    examples = stage / "usr" / "share" / "doc" / "realize" / "examples"
    for unit in units:
        folder = stage / "lib" / "systemd" / "system" if unit.suffix in {".service", ".timer"} else examples
        put[folder / unit.name] = (unit, 0o644)
    put[examples / "realized.toml"] = (tree / "deploy" / "realized.toml", 0o644)
    for group in ("prometheus", "grafana"):
        for example in (tree / "deploy" / group).iterdir():
            put[examples / group / example.name] = (example, 0o644)
    for path, (origin, mode) in put.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(origin, path)
        path.chmod(mode)


def _completion(stage: Path, environment: dict[str, str]) -> None:
    """Put the scripts that complete command lines where the package of each shell looks for them."""
    programs = stage / PREFIX.relative_to("/") / "bin"
    for shell, place in COMPLETION.items():
        path = stage / "usr" / "share" / place
        path.parent.mkdir(parents=True)
        command = (programs / "python3", programs / "realize", "completion", shell)
        path.write_text(run(*command, cwd=stage, environment=environment))


def _man_pages(stage: Path, tree: Path, environment: dict[str, str]) -> None:
    """Make the man pages, as they are for the checkout."""
    python = stage / PREFIX.relative_to("/") / "bin" / "python3"
    pages = stage / "usr" / "share" / "man"
    # It looks there for the packages that the environment has, and in the checkout for Realize and its pages.
    run(python, "-B", "-m", "release.man", pages, cwd=tree, environment=environment)


def _changelog(debian: Path, version: str, epoch: int) -> None:
    """What debhelper takes version and date from; what has changed is in CHANGELOG.md."""
    date = format_datetime(datetime.fromtimestamp(epoch, UTC))
    author = re.search(r"^Maintainer: (.*)$", (debian / "control").read_text(), flags=re.MULTILINE)
    assert author is not None
    entry = f"realize ({version}) stable; urgency=medium\n\n  * See CHANGELOG.md.\n\n -- {author[1]}  {date}\n"
    (debian / "changelog").write_text(entry)


if __name__ == "__main__":
    sys.exit(main())
