"""The lines that messages tell somebody to paste.

Each message is fed to the reader of the configuration as a person would do it.
"""

import re
import socket
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from realize.cli.main import realize
from realize.config import Right, read_config
from realize.errors import WrongPeer
from realize.keys import generate_identity, load_identity
from realize.pasting import if_there, right, table
from realize.runs.check_findings import not_welcome
from realize.runs.peers import no_pin

KEY, FORMER, OTHER = (generate_identity().public_key for _ in range(3))

DAEMON = """
key = "own.key"
[dirs.inbox]
path = "."
[dirs."a.b"]
path = "."
[peers.other]
key = "{other}"
"""

LINE = re.compile(r"\[peers\..*\]|(?:key|address|dirs) = .*")


def toml(message):
    """The lines of a message that are not for people, by table."""
    tables = []
    for line in (line.strip() for line in message.splitlines()):
        if line.startswith("[peers."):
            tables.append([])
        if tables and LINE.fullmatch(line):
            tables[-1].append(line)
    return tables


def pasted(config, lines):
    """A configuration with a table at its end, or with its lines instead of those of a table that is there."""
    header, *rest = lines
    before, there, after = config.partition(header + "\n")
    if not there:
        return "\n".join([config, *lines])
    own, bracket, others = after.partition("\n[")
    changed = {line.partition(" = ")[0] for line in rest}
    kept = [line for line in own.splitlines() if line.partition(" = ")[0] not in changed]
    return "\n".join([before, header, *rest, *kept, bracket + others])


def read(tmp_path, text, *, for_daemon=True):
    """What the daemon, or the command, reads in it."""
    (tmp_path / "own.key").touch()
    path = tmp_path / "realize.toml"
    path.write_text(text)
    path.chmod(0o600)
    return read_config(str(path), for_daemon=for_daemon, environ={"HOME": str(tmp_path)})


def checked():
    """What `check` says of a daemon that does not know our key; a move says the same."""
    (finding,) = not_welcome(WrongPeer("nas:9771 does not know the key of this machine"), KEY)
    return "\n".join(finding.lines())


@pytest.mark.parametrize("there", [False, True])
def test_a_daemon_that_gets_the_lines_knows_the_machine(tmp_path, monkeypatch, there):
    """At the end of its configuration, or in the table that it has for a former key of that machine."""
    monkeypatch.setattr(socket, "gethostname", lambda: "camera_1.example.org")
    config = DAEMON.format(other=OTHER.base64)
    if there:
        config += f'[peers.camera-1]\naddress = "cam:1"\nkey = "{FORMER.base64}"\n'

    said = checked()
    (lines,) = toml(said)
    peer = read(tmp_path, pasted(config, lines)).peers["camera-1"]

    assert (KEY, {"inbox": {Right.WRITE}}, "cam:1" if there else None) == (peer.key, dict(peer.rights), peer.address)
    assert if_there("camera-1") in said


@pytest.mark.parametrize("there", [False, True])
def test_what_keygen_prints_serves_both_ends(tmp_path, monkeypatch, there):
    """How a daemon grants us something, and how a command finds our daemon; one after the other in one file, too."""
    monkeypatch.setattr(socket, "gethostname", lambda: "camera_1.example.org")
    said = CliRunner().invoke(realize, ["keygen", str(tmp_path / "x.key")]).stdout
    key = load_identity(str(tmp_path / "x.key")).public_key
    granted, found = toml(said)
    config = DAEMON.format(other=OTHER.base64) + (f'[peers.camera-1]\nkey = "{FORMER.base64}"\n' if there else "")

    at_daemon = read(tmp_path, pasted(config, granted)).peers["camera-1"]
    at_command = read(tmp_path, pasted(config, found), for_daemon=False).peers["camera-1"]
    both = read(tmp_path, pasted(pasted(config, granted), found)).peers["camera-1"]

    assert (key, {"inbox": {Right.WRITE}}) == (at_daemon.key, dict(at_daemon.rights))
    assert (key, "camera_1.example.org:9771") == (at_command.key, at_command.address)
    assert (key, at_daemon.rights, at_command.address) == (both.key, both.rights, both.address)
    assert 2 == said.count(if_there("camera-1"))


@pytest.mark.parametrize(
    ("host", "peer"), [("nas", "nas"), ("nas.example.org", "nas"), ("192.0.2.1", "NAME"), ("::1", "NAME")]
)
@pytest.mark.parametrize("there", [False, True])
def test_a_command_that_gets_the_lines_knows_the_daemon(tmp_path, host, peer, there):
    """With the key in the place of the example."""
    said = no_pin(host, 9772, SimpleNamespace(config_name="realize.toml", peer_key_name="--peer-key"))
    (lines,) = toml(said.replace("MCowBQYDK2VwAyEA...", KEY.base64))
    config = f'[peers.{peer}]\nkey = "{FORMER.base64}"\n' if there else ""

    found = read(tmp_path, pasted(config, lines), for_daemon=False).peers[peer]

    assert (KEY, f"[{host}]:9772" if ":" in host else f"{host}:9772") == (found.key, found.address)
    assert if_there(peer) in said


@pytest.mark.parametrize(("peer", "directory"), [("camera", "inbox"), ("camera.1", "a.b")])
def test_a_daemon_that_gets_the_right_lets_the_machine_in(tmp_path, peer, directory):
    """In the table that must be there, as the daemon knows the machine by it; also under names that need quotes."""
    config = DAEMON.format(other=OTHER.base64) + f'{table(peer)}\nkey = "{KEY.base64}"\n'

    (lines,) = toml("\n".join(right(peer, directory)))
    found = read(tmp_path, pasted(config, lines)).peers[peer]

    assert (KEY, {directory: {Right.WRITE}}) == (found.key, dict(found.rights))


def test_what_a_daemon_calls_us_stays_on_its_line():
    """A name is the other side's text."""
    assert r'[peers."a\n[dirs]\u202e"]' == table("a\n[dirs]\u202e")
