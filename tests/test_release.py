"""`make release`: what it refuses, what it changes, and a whole release in a clone."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from release.__main__ import check
from release.text import Refused, check_version, dated, version_in, with_version
from release.trial import run
from tests.pages import ROOT

DAY = date(2030, 1, 2)


@pytest.mark.parametrize("version", ["1.0.0", "0.1.0", "0.10.0", "2.0.0rc1"])
def test_versions_that_may_follow(version):
    """What is not older than the code and newer than every release, counted as numbers."""
    check_version(version, "0.1.0", ["v0.0.9", "before-b"])


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ("", "is not a version"),
        ("v1.0.0", "is not a version"),
        ("1.0", "is not a version"),
        ("1.0.00", "is not a version"),
        ("1.0.0; rm", "is not a version"),
        ("0.9.0", "is released already"),
        ("0.8.0", "is older than 0.9.0"),
        ("0.9.0rc1", "is older than 0.9.0"),
        ("0.0.1", "is older than 0.9.0"),
    ],
)
def test_versions_that_may_not(version, reason):
    """What is no version, is released, or lies behind what is."""
    with pytest.raises(Refused, match=reason):
        check_version(version, "0.1.0", ["v0.9.0", "v0.2.0"])


def test_a_version_behind_the_code():
    """It is refused without any release, too."""
    with pytest.raises(Refused, match=r"0\.0\.9 is older than 0\.1\.0"):
        check_version("0.0.9", "0.1.0", [])


def test_the_version_has_one_place():
    """It is replaced there, and nothing else is; a second place, or none, is refused."""
    module = '"""About __version__."""\n\n__version__ = "0.1.0"\n"""The version."""\n'

    assert "0.1.0" == version_in(module)
    assert module.replace("0.1.0", "1.0.0") == with_version(module, "1.0.0")
    for wrong in ("", module + '__version__ = "2"\n'):
        with pytest.raises(Refused, match="where one is expected"):
            with_version(wrong, "1.0.0")


def test_the_changelog_is_dated():
    """What was unreleased is a version of that day, and what is to come has its heading."""
    before = "# Changes\n\nWords.\n\n## Unreleased\n\n- One.\n\n## 0.1.0 (2029-12-31)\n\n- Two.\n"

    after = (
        "# Changes\n\nWords.\n\n## Unreleased\n\n## 1.0.0 (2030-01-02)\n\n- One.\n\n## 0.1.0 (2029-12-31)\n\n- Two.\n"
    )
    assert after == dated(before, "1.0.0", DAY)


@pytest.mark.parametrize(
    ("changelog", "reason"),
    [
        ("# Changes\n", "no heading"),
        ("# Changes\n\n## Unreleased\n\n- One.\n\n## Unreleased\n", "more than one"),
        ("# Changes\n\n## Unreleased\n\n## 0.1.0 (2029-12-31)\n\n- Two.\n", "nothing to release"),
        ("# Changes\n\n## Unreleased\n", "nothing to release"),
    ],
)
def test_a_changelog_that_cannot_be_dated(changelog, reason):
    """Without changes there is no release."""
    with pytest.raises(Refused, match=reason):
        dated(changelog, "1.0.0", DAY)


def test_the_files_of_this_checkout_fit():
    """The version and the heading are where a release looks for them."""
    module = (ROOT / "realize" / "__init__.py").read_text()

    assert version_in(module) in with_version(module, version_in(module))
    assert "\n## Unreleased\n" in (ROOT / "CHANGELOG.md").read_text()


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A repository with what a release needs of this checkout as it is, whose changelog has something to release."""
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "Somebody")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "somebody@example.invalid")
    folder = tmp_path / "clone"
    folder.mkdir()
    for name in (".gitignore", "CHANGELOG.md", "LICENSE", "README.md", "pyproject.toml", "setup.cfg", "setup.py"):
        shutil.copy(ROOT / name, folder)
    for name in ("deploy", "docs", "realize", "release", "twisted"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "dropin.cache"))
    log = folder / "CHANGELOG.md"
    log.write_text(log.read_text().replace("## Unreleased\n", "## Unreleased\n\n- Something new.\n"))
    run("git", "init", "--quiet", "--initial-branch=main", cwd=folder)
    run("git", "add", "--all", cwd=folder)
    run("git", "commit", "--quiet", "--message", "All of it", cwd=folder)
    return folder


def release(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script there."""
    command = [sys.executable, "-m", "release", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_refusals_are_one_sentence(clone):
    """The script names what is in the way, ends with 1, and has changed nothing."""
    clone.joinpath("new").touch()

    done = release(clone, "9.0.0")

    sentence = "release: error: the working tree has changes that are not committed: commit them, or take them away\n"
    assert (1, "", sentence) == (done.returncode, done.stdout, done.stderr)
    assert "" == run("git", "tag", cwd=clone)


def test_not_in_a_checkout(tmp_path):
    """Elsewhere there is nothing to release."""
    tmp_path.joinpath("release").symlink_to(ROOT / "release")

    done = release(tmp_path, "--check", "9.0.0")

    assert (1, "release: error: realize/__init__.py: No such file or directory\n") == (done.returncode, done.stderr)


def test_a_checkout_that_is_fit(clone):
    """It passes; without a branch it does not."""
    check(clone, "9.0.0")
    run("git", "checkout", "--quiet", "--detach", cwd=clone)

    with pytest.raises(Refused, match="no branch is checked out"):
        check(clone, "9.0.0")


def test_what_fails_in_the_trial_is_told():
    """The command, its exit code and its last words."""
    with pytest.raises(Refused, match=r"(?s)git nonsense failed with exit code 1:.*is not a git command"):
        run("git", "nonsense", cwd=ROOT)


@pytest.mark.soak
def test_a_whole_release(clone):
    """Commit, tag, sdist, wheel and Debian package are there and work; a second release of that name is refused."""
    done = release(clone, "9.0.0")

    assert "" == done.stderr
    assert 0 == done.returncode
    assert "Nothing was pushed." in done.stdout
    assert ["realize-9.0.0-py3-none-any.whl", "realize-9.0.0.tar.gz", "realize_9.0.0+"] == [
        re.sub(r"\+.*\.deb", "+", each.name) for each in sorted((clone / "dist").iterdir())
    ]
    assert "release: 9.0.0\n" == run("git", "log", "-1", "--format=%s", "v9.0.0", cwd=clone)
    assert run("git", "rev-parse", "main", cwd=clone) == run("git", "rev-parse", "v9.0.0^{commit}", cwd=clone)
    assert "" == run("git", "status", "--porcelain", cwd=clone)
    assert 1 == len(run("git", "worktree", "list", cwd=clone).splitlines())
    assert "9.0.0 is released already" in release(clone, "9.0.0").stderr


@pytest.mark.soak
def test_a_release_that_does_not_work_leaves_no_trace(clone):
    """A wheel whose command says another version is refused, and neither commit nor tag stays."""
    main = clone / "realize" / "cli" / "main.py"
    main.write_text(main.read_text().replace("%(version)s", "another"))
    run("git", "commit", "--quiet", "--all", "--message", "Break it", cwd=clone)
    before = run("git", "rev-parse", "HEAD", cwd=clone)

    done = release(clone, "9.0.0")

    assert (1, "release: error: the installed wheel fails at realize --version\n") == (done.returncode, done.stderr)
    assert before == run("git", "rev-parse", "HEAD", cwd=clone)
    assert "" == run("git", "tag", cwd=clone) + run("git", "status", "--porcelain", cwd=clone)
    assert not (clone / "dist").exists()
