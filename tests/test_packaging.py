"""The wheel: what is in it, and that what it installs works without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from realize import __version__

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the checkout, so that nothing is left behind in it."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("wheel")
    files = ("setup.cfg", "setup.py", "pyproject.toml", "README.md", "LICENSE", "realize", "twisted")
    subprocess.run(["cp", "-r", *[str(ROOT / name) for name in files], str(copy)], check=True)
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(out), str(copy)]
    subprocess.run(command, capture_output=True, check=True)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts of an environment with the wheel in it; dependencies are borrowed from this one, to be quick."""
    place = tmp_path_factory.mktemp("env")
    venv.create(place, with_pip=False, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = place / "lib" / version / "site-packages"
    (packages / "borrowed.pth").write_text(borrowed(packages.parent / "borrowed"))
    pip = [sys.executable, "-m", "pip", "--python", str(place / "bin" / "python")]
    subprocess.run([*pip, "install", "--no-deps", "--no-index", str(wheel)], capture_output=True, check=True)
    return place / "bin"


def borrowed(place: Path) -> str:
    """A folder of links to everything that is installed here, except Realize itself."""
    place.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if path.suffix != ".pth" and "realize" not in path.name and path.name not in {"pip", "setuptools"}:
            (place / path.name).symlink_to(path)
    return f"{place}\n"


def run(*command: str | Path, cwd: Path) -> str:
    """What a command prints, run far from the checkout."""
    environment = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert 0 == done.returncode, done.stderr
    return done.stdout


def test_the_wheel_has_the_package_and_the_plugin_and_nothing_else(wheel: Path) -> None:
    """The plugin is in it, and no file that would shadow Twisted's own; neither tests nor docs are."""
    names = zipfile.ZipFile(wheel).namelist()

    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert {"realize", "twisted"} == tops
    assert ["twisted/plugins/realize_plugins.py"] == [name for name in names if name.startswith("twisted/")]
    assert "realize/py.typed" in names
    assert any(name.endswith("LICENSE") for name in names)


def test_every_module_is_in_the_wheel(wheel: Path) -> None:
    """No package was forgotten in setup.cfg."""
    names = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("realize/") and name.endswith(".py")}

    assert {str(path.relative_to(ROOT)) for path in (ROOT / "realize").rglob("*.py")} == names


def test_the_scripts_for_shells_are_in_the_wheel(wheel: Path) -> None:
    """The files that `realize completion` fills in are no modules, and could be forgotten."""
    names = zipfile.ZipFile(wheel).namelist()

    assert {f"realize/cli/completion/realize.{shell}" for shell in ("bash", "zsh", "fish")} <= set(names)


def test_the_installed_commands_work(installed: Path, tmp_path: Path) -> None:
    """`realize` and `twistd realized` are there after installing the wheel."""
    version = run(installed / "realize", "--version", cwd=tmp_path)
    commands = run(installed / "python", "-m", "twisted.scripts.twistd", "--help", cwd=tmp_path) or run(
        installed / "python", "-c", "from twisted.scripts.twistd import run; run()", "--help", cwd=tmp_path
    )

    assert f"realize {__version__}\n" == version
    assert "realized" in commands
