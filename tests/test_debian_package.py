"""The Debian package: what it is made from, and, where it is built for real, what is in it."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
import sys
import tomllib
from configparser import ConfigParser

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from realize.config import read_config
from realize.keys import generate_identity, write_identity
from realize.pasting import client_lines
from release.deb import build_deb, check_tools
from release.text import Refused, deb_version
from release.trial import run, try_deb
from tests.pages import ROOT
from tests.prometheus import program
from tests.shipped import read_daemon_config

DEBIAN = ROOT / "release" / "debian"
SCRIPTS = ("preinst", "postinst", "prerm", "postrm")


@pytest.mark.parametrize(
    ("version", "system", "release", "expected"),
    [
        ("1.0.0", "debian", "12", "1.0.0+deb12"),
        ("1.0.0rc1", "debian", "12", "1.0.0~rc1+deb12"),
        ("1.0.0", "ubuntu", "24.04", "1.0.0+ubuntu24.04"),
        ("1.0.0", "debian", "", "1.0.0+deb"),
    ],
)
def test_versions(version, system, release, expected):
    """The package says for which release of which system it is, and a candidate comes before its release."""
    assert expected == deb_version(version, system, release)


def test_each_version_is_newer_than_the_former_one():
    """By the rules of dpkg: candidate, release, the same for the next Debian, the next release."""
    order = ["1.0.0~rc1+deb12", "1.0.0~rc2+deb12", "1.0.0+deb12", "1.0.0+deb13", "1.0.1+deb12"]

    for older, newer in itertools.pairwise(order):
        subprocess.run([program("dpkg"), "--compare-versions", older, "lt", newer], check=True)


def test_a_missing_program_is_named(monkeypatch):
    """With the package to install."""
    monkeypatch.setenv("PATH", "")

    with pytest.raises(Refused, match=r"^dpkg-buildpackage is missing, .*: apt-get install dpkg-dev$"):
        check_tools()


def pins():
    """The pinned version of each package."""
    found = re.findall(r"(?m)^([\w.-]+)==(\S+) \\$", (ROOT / "release" / "pins.txt").read_text())
    return {canonicalize_name(name): Version(version) for name, version in found}


def test_all_that_is_needed_is_pinned():
    """Each dependency has a version that is allowed, and each version its digests."""
    settings = ConfigParser()
    settings.read(ROOT / "setup.cfg")
    needed = [Requirement(line) for line in settings["options"]["install_requires"].split()]
    text = (ROOT / "release" / "pins.txt").read_text()

    assert len(needed) > 10
    assert [] == [each for each in needed if pins()[canonicalize_name(each.name)] not in each.specifier]
    assert len(re.findall(r"(?m)==\S+ \\\n +--hash=sha256:", text)) == len(pins())


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_sound(name):
    """`sh` and shellcheck have nothing against the maintainer scripts."""
    subprocess.run([program("sh"), "-n", DEBIAN / name], check=True)
    done = subprocess.run([program("shellcheck"), DEBIAN / name], capture_output=True, text=True, check=False)

    assert "" == done.stdout + done.stderr


def test_the_command_for_the_daemon_is_sound():
    """`realized` is a script for sh, too."""
    subprocess.run([program("shellcheck"), DEBIAN / "realized.sh"], check=True)


def ended(name, words, places):
    """The exit code of a maintainer script, with other places for those of the system, and what it said."""
    text = (DEBIAN / name).read_text()
    for place, other in places.items():
        text = text.replace(place, str(other))
    done = subprocess.run([program("sh"), "-c", text, name, *words], capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize("words", [["install"], ["install", "0.1.0+deb12", "1.0.0+deb12"]])
def test_an_installation_of_another_kind_is_not_overwritten(tmp_path, words):
    """By pip /opt/realize is a link, which dpkg would go through, also where the package was removed before."""
    (tmp_path / "realize-1.0.0" / "bin").mkdir(parents=True)
    link = tmp_path / "realize"
    link.symlink_to("realize-1.0.0")

    code, said = ended("preinst", words, {"/opt/realize": link})

    assert (1, True) == (code, "move it away first" in said)


@pytest.mark.parametrize("words", [["install"], ["upgrade", "0.1.0+deb12", "1.0.0+deb12"]])
def test_the_package_is_put_where_nothing_or_itself_is(tmp_path, words):
    """A first installation, and an upgrade, which finds what the former version has there."""
    if words[0] == "upgrade":
        (tmp_path / "realize" / "bin").mkdir(parents=True)

    assert (0, "") == ended("preinst", words, {"/opt/realize": tmp_path / "realize"})


def test_the_command_for_the_daemon_works_where_its_user_may_not_enter():
    """Root is in /root most often, and twistd goes once more to where it is unless it is told otherwise."""
    assert " --rundir=/ " in (DEBIAN / "realized.sh").read_text()


def test_a_first_installation_makes_what_is_not_there(tmp_path):
    """Configuration and key; it leaves what an operator has, a link for instance, and later ones make nothing."""
    share, etc, programs = (tmp_path / name for name in ("share", "etc", "bin"))
    for folder in (share, etc, programs):
        folder.mkdir()
    for name in ("realized.toml", "realize.toml"):
        (share / name).write_text("default")
    for name in ("systemd-sysusers", "chown"):
        (programs / name).symlink_to("/bin/true")
    # Of an installation that was interrupted.
    (etc / "realized.key.new").touch()
    keygen = programs / "realize"
    keygen.write_text('#!/bin/sh\nset -eC\necho "$*" > "$2"\n')
    keygen.chmod(0o755)
    (etc / "realized.toml").symlink_to("elsewhere")
    places = {
        "#!/bin/sh": f"PATH={programs}:$PATH",
        "/etc/realize": etc,
        "/usr/share/realize": share,
        "/opt/realize/bin": programs,
        "/srv/realize": tmp_path,
    }
    (tmp_path / "inbox").mkdir()

    assert (0, "") == ended("postinst", ["configure"], places)
    assert {"realize.toml", "realized.key", "realized.toml"} == {path.name for path in etc.iterdir()}
    assert ("default", 0o644) == ((etc / "realize.toml").read_text(), (etc / "realize.toml").stat().st_mode & 0o777)
    assert (etc / "realized.toml").is_symlink()
    assert f"keygen {etc}/realized.key.new\n" == (etc / "realized.key").read_text()
    (etc / "realize.toml").unlink()
    assert (0, "") == ended("postinst", ["configure", "1.0.0"], places)
    assert not (etc / "realize.toml").exists()


def test_purge_names_no_directory_that_is_served():
    """What holds files of somebody is removed if it is empty, and in no other way."""
    text = (DEBIAN / "postrm").read_text()

    assert "rmdir --ignore-fail-on-non-empty" in text
    assert [] == re.findall(r"rm -\w*r\w* ", text)
    assert ["/var/lib/realize", "/var/log/realize"] == re.findall(r"find (\S+) ", text)


def test_the_daemon_starts_with_the_default_configuration(tmp_path):
    """It serves one directory, to nobody, with the key that the installation makes."""
    config = read_daemon_config(tmp_path, (DEBIAN / "realized.toml").read_text())

    assert [*config.directories] == ["inbox"]
    assert not config.peers


def test_a_peer_is_added_by_pasting_its_lines(tmp_path):
    """What `keygen` prints fits the name of the directory, at the end of the file."""
    lines = client_lines("camera", generate_identity().public_key)

    config = read_daemon_config(tmp_path, (DEBIAN / "realized.toml").read_text() + "\n".join(["", *lines]) + "\n")

    assert ["inbox"] == [*config.peers["camera"].rights]


def test_the_configuration_of_batch_jobs_is_good(tmp_path):
    """As it is, and with the example in it."""
    write_identity(str(tmp_path / "realized.key"), generate_identity())
    text = (DEBIAN / "realize.toml").read_text()
    key = generate_identity().public_key.base64
    for number, content in enumerate(
        (text, re.sub(r"(?m)^# (\[|\w+ = )", r"\1", text).replace("MCowBQYDK2VwAyEA...", key))
    ):
        path = tmp_path / f"{number}.toml"
        path.write_text(content)

        read_config(str(path))
        assert number == len(tomllib.loads(content).get("peers", {}))


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """What is checked out here, as it is, as a commit of a repository of its own."""
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "Somebody")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "somebody@example.invalid")
        monkeypatch.setenv(f"GIT_{name}_DATE", "2026-01-02T03:04:05Z")
    folder = tmp_path / "checkout"
    for name in run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT).splitlines():
        folder.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    run("git", "init", "--quiet", cwd=folder)
    run("git", "add", "--all", cwd=folder)
    run("git", "commit", "--quiet", "--message", "All of it", cwd=folder)
    return folder


@pytest.mark.soak
def test_the_package(checkout, tmp_path):
    """It has what it should, works where it is unpacked, is the same file each time, and lintian is content with it."""
    run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, checkout, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    one, two = (build_deb(checkout, wheel, tmp_path / name) for name in ("one", "two"))
    version = run(program("dpkg-deb"), "--field", one, "Version", cwd=tmp_path)

    try_deb(one, version.partition("+")[0], tmp_path)
    linted = run(program("lintian"), "--fail-on=error,warning", "--allow-root", one, cwd=tmp_path)
    assert ("", one.read_bytes()) == (linted, two.read_bytes())
    listing = [line.split() for line in run("dpkg-deb", "--contents", one, cwd=tmp_path).splitlines()]
    names = {words[5].lstrip(".") for words in listing}
    assert {"root/root"} == {words[1] for words in listing}
    assert set() == BROUGHT - names
    assert [] == [name for name in names if name.endswith(".key") or name.startswith(("/srv", "/var"))]
    assert "/etc/logrotate.d/realized\n" == run("dpkg-deb", "--info", one, "conffiles", cwd=tmp_path)


BROUGHT = {
    "/etc/logrotate.d/realized",
    "/lib/systemd/system/realize-move@.service",
    "/lib/systemd/system/realize-move@.timer",
    "/lib/systemd/system/realized.service",
    "/opt/realize/bin/realize",
    "/opt/realize/bin/twistd",
    "/usr/bin/realize",
    "/usr/lib/sysusers.d/realize.conf",
    "/usr/sbin/realized",
    "/usr/share/bash-completion/completions/realize",
    "/usr/share/fish/vendor_completions.d/realize.fish",
    "/usr/share/man/man1/realize.1.gz",
    "/usr/share/man/man8/realized.8.gz",
    "/usr/share/realize/realize.toml",
    "/usr/share/realize/realized.toml",
    "/usr/share/zsh/vendor-completions/_realize",
}
"""What operators, systemd and shells look for."""
