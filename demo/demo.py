"""Moves a small tree through a real daemon on this machine, over TLS, and proves that it arrived.

Run by ``make demo``; everything it makes is in one temporary directory, which it removes.
Exits with 1, saying why, if anything is not as it claims.
"""
# ruff: noqa: INP001, T201, S311, S603

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

from blake3 import blake3

BIN = os.path.dirname(os.path.abspath(sys.executable))
LARGE = 64 << 20
SMALL = 1_000
PATIENCE = 20.0
"""Seconds that the daemon may take to start, or to stop."""

Manifest: TypeAlias = dict[bytes, tuple[int, str, int, int]]
"""Size, digest, permission bits and modification time of each file."""

ODD_NAMES = (
    b"with space",
    b"new\nline",
    b"c:olon",
    b"-dash",
    b"caf\xc3\xa9",
    b"not utf-8 \xff\xfe",
    b".hidden",
    b"'quote\"",
)


class NotAsClaimed(Exception):
    """The demo failed; the text says how."""


def main() -> int:
    """Run the demo; 0 if everything is as claimed."""
    with tempfile.TemporaryDirectory(prefix="realize-demo-") as place:
        try:
            demonstrate(place)
        except NotAsClaimed as problem:
            print(f"\ndemo: FAILED: {problem}", file=sys.stderr)
            return 1
    return 0


def demonstrate(place: str) -> None:
    """Do what the module says, in the directory ``place``."""
    source, inbox = os.path.join(place, "camera"), os.path.join(place, "inbox")
    os.mkdir(inbox)
    make_tree(source)
    before = manifest(source)
    total = sum(size for size, *_ in before.values())
    print(f"demo: made {len(before):,} files, {total / (1 << 20):.0f} MiB, in {source}")

    port = free_port()
    server, client = configure(place, port, inbox)
    print(f"demo: made two identities and two configurations; starting `twistd realized` on 127.0.0.1:{port}")
    with daemon(server, port, os.path.join(place, "daemon.log")):
        print(f"demo: realize --config realize.toml {source} nas::inbox")
        started = time.monotonic()
        moved = subprocess.run([os.path.join(BIN, "realize"), "--config", client, source, "nas::inbox"], check=False)
        seconds = time.monotonic() - started
        expect(moved.returncode == 0, f"realize exited with {moved.returncode}, not 0")

    expect(os.path.isdir(os.path.join(source, "a/b/c/d/e")), "a directory of the source is gone; only files should be")
    expect(not manifest(source), f"files are still at the source: {sorted(manifest(source))[:5]}")
    after = manifest(inbox)
    expect(before.keys() == after.keys(), f"other names arrived: {sorted(before.keys() ^ after.keys())[:5]}")
    different = [path for path in before if before[path] != after[path]]
    expect(not different, f"size, digest, mode or time differ: {different[:5]}")
    print(f"""
demo: OK. {len(before):,} files went through a real daemon over TLS 1.3 in {seconds:.1f} s. No file is left there; the
destination has every one with the same name, BLAKE3 digest, permissions and modification time. The daemon is stopped.

What to type next, for two machines (README.md has every step):
  realize keygen                                     on both: make a key, print the lines to paste on the other one
  twistd --nodaemon --pidfile= realized --config realized.toml    on the one that receives
  realize --dry-run /some/directory hostb::inbox     on the one that sends: see what would happen
  realize /some/directory hostb::inbox               and do it""")


def make_tree(root: str) -> None:
    """Many small files, a large one, an empty one, odd names, several modes, directories in directories."""
    chance = random.Random(1)
    for number in range(SMALL):
        write(root, f"day{number % 10}/hour{number % 7}/{number:04}.jpg", chance.randbytes(chance.randrange(20_000)))
    write(root, "video/long.mp4", chance.randbytes(1 << 20) * (LARGE >> 20))
    write(root, "empty", b"")
    write(root, "a/b/c/d/e/deep", b"deep")
    for number, name in enumerate(ODD_NAMES):
        write(os.fsencode(root), b"odd/" + name, b"odd", mode=(0o600, 0o640, 0o755, 0o444)[number % 4])


def write(root: str | bytes, name: str | bytes, content: bytes, mode: int = 0o644) -> None:
    """Make one file, old enough to tell whether its time was kept."""
    path = os.path.join(os.fsencode(root), os.fsencode(name))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)
    os.chmod(path, mode)
    os.utime(path, ns=(10**18, 10**18 + len(content)))


def manifest(root: str) -> Manifest:
    """What is below ``root``."""
    found: Manifest = {}
    top = os.fsencode(root)
    for directory, _, names in os.walk(top):
        for name in names:
            path = os.path.join(directory, name)
            status = os.stat(path)
            with open(path, "rb") as file:
                digest = blake3(file.read()).hexdigest()
            relative = os.path.relpath(path, top)
            found[relative] = (status.st_size, digest, status.st_mode & 0o777, status.st_mtime_ns)
    return found


def configure(place: str, port: int, inbox: str) -> tuple[str, str]:
    """Make an identity and a configuration for each end; the names of the daemon's file and the command's."""
    nas, camera = keygen(os.path.join(place, "nas.key")), keygen(os.path.join(place, "camera.key"))
    server, client = os.path.join(place, "realized.toml"), os.path.join(place, "realize.toml")
    with open(server, "w", encoding="utf-8") as file:
        file.write(f"""key = "nas.key"
listen = ["127.0.0.1:{port}"]
[dirs.inbox]
path = "{inbox}"
[peers.camera]
key = "{camera}"
dirs = {{ inbox = ["write"] }}
""")
    with open(client, "w", encoding="utf-8") as file:
        file.write(f"""key = "camera.key"
[peers.nas]
address = "127.0.0.1:{port}"
key = "{nas}"
""")
    return server, client


def keygen(path: str) -> str:
    """Make an identity with the real command; its public key."""
    result = subprocess.run([os.path.join(BIN, "realize"), "keygen", path], capture_output=True, text=True, check=False)
    expect(result.returncode == 0, f"realize keygen: {result.stderr}")
    return next(line for line in result.stdout.splitlines() if line.startswith("MCowBQYDK2VwAyEA"))


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@contextmanager
def daemon(config: str, port: int, log: str) -> Iterator[None]:
    """A daemon that listens; stopped in order at the end."""
    command = [os.path.join(BIN, "twistd"), "--nodaemon", "--pidfile=", "realized", "--config", config]
    with open(log, "wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=os.path.dirname(config))
    try:
        wait_until_listening(process, port)
        yield
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)
        expect(process.returncode in {0, -signal.SIGTERM}, f"the daemon ended with {process.returncode}:\n{read(log)}")
    except subprocess.TimeoutExpired as error:
        raise NotAsClaimed(f"the daemon did not stop within {PATIENCE:.0f} s:\n{read(log)}") from error
    except NotAsClaimed as problem:
        if log_text := read(log):
            print(f"demo: the daemon said:\n{log_text}", file=sys.stderr)
        raise problem from None
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def wait_until_listening(process: subprocess.Popen[bytes], port: int) -> None:
    """Return once somebody listens on the port."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        expect(process.poll() is None, f"the daemon did not start (exit code {process.returncode})")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise NotAsClaimed(f"the daemon does not listen after {PATIENCE:.0f} s")


def read(log: str) -> str:
    """What the daemon said."""
    with open(log, encoding="utf-8", errors="replace") as file:
        return file.read()


def expect(fact: bool, otherwise: str) -> None:  # noqa: FBT001
    """Fail loudly unless the fact is one."""
    if not fact:
        raise NotAsClaimed(otherwise)


if __name__ == "__main__":
    sys.exit(main())
