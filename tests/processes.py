"""Real processes for the tests that need them: a daemon under twistd, and the command."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from realize.keys import generate_identity, write_identity

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-m", "realize.cli.main"]
TWISTD = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
# What is installed has its bytecode; without it every process would compile Realize anew, a quarter of its start-up.
UNSET = (
    *("REALIZE_CONFIG", "REALIZE_KEY", "PYTHONDONTWRITEBYTECODE"),
    *("NOTIFY_SOCKET", "RUNTIME_DIRECTORY", "STATE_DIRECTORY", "WATCHDOG_PID", "WATCHDOG_USEC", "XDG_RUNTIME_DIR"),
)
"""What of this process's environment is kept from those that it starts."""
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
for name in UNSET:
    ENVIRONMENT.pop(name, None)


POPEN: Callable[..., subprocess.Popen] = subprocess.Popen
"""How the programs are started; `tests/conftest.py` has them started warm, what measures does not."""


def run_program(argv, *, timeout=60, capture_output=False, check=False, **options) -> subprocess.CompletedProcess:
    """Like `subprocess.run`, for the command or the daemon."""
    if capture_output:
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with POPEN(argv, **options) as process:
        try:
            said, complained = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(process.args, process.returncode, said, complained)
    if check:
        done.check_returncode()
    return done


def closing(streams: str, *argv: str) -> list[str]:
    """The command line that closes standard streams, such as ``1>&- 2>&-``, before it becomes ``argv``."""
    return ["bash", "-c", f'exec "$@" {streams}', "bash", *argv]


BUSY_S = 10.0
"""How much longer than by itself something may take on a machine that has other things to do."""


def printed(code):
    """The words that a new process prints which runs this code."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=True, timeout=60
    )
    return done.stdout.split()


def wait_for(condition, seconds=30):
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses, and that no program gets which asks the kernel for any one.

    So a daemon can come back at it, and nobody listens there meanwhile, however many other tests run.
    """
    while True:
        number = random.SystemRandom().randrange(10_000, 32_768)  # the kernel gives those behind
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", number)):
            return number


def start_daemon(
    config: Path,
    log: Path,
    *options: str,
    twistd: tuple[str, ...] = (),
    environ: dict[str, str] | None = None,
    program: list[str] = TWISTD,
) -> subprocess.Popen:
    """A daemon with that configuration, whose output goes to the end of ``log``; ``environ`` is what it has besides.

    ``program`` is what does as ``twistd`` does.
    """
    with log.open("ab") as said:
        return POPEN(
            [*program, "--nodaemon", "--pidfile=", *twistd, "realized", "--config", str(config), *options],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            cwd=config.parent,
            env={**ENVIRONMENT, **(environ or {})},
        )


def lives(pid: int | str) -> bool:
    """Whether that process is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Site:
    """A folder with two identities, a daemon serving ``inbox``, and a command that may use it."""

    program = TWISTD

    def __init__(self, folder: Path, rights=("read", "write", "remove", "prune"), *, inbox: Path | None = None):
        self.folder = folder
        self.inbox = inbox or folder / "inbox"
        self.inbox.mkdir(exist_ok=True, parents=True)
        self.rights = list(rights)
        self.port = free_port()
        self.daemon: subprocess.Popen | None = None
        self.keys = {}
        for name in ("command", "daemon"):
            identity = generate_identity()
            write_identity(str(folder / f"{name}.key"), identity)
            self.keys[name] = identity.public_key.base64
        self.write_daemon_config()

    def write_daemon_config(self, extra: str = "") -> None:
        """The daemon's configuration; the command is its peer ``tester``."""
        (self.folder / "realized.toml").write_text(
            f'key = "daemon.key"\nlisten = ["tcp:{self.port}:interface=127.0.0.1"]\n'
            f"[dirs.inbox]\npath = {json.dumps(str(self.inbox))}\n"
            f'[peers.tester]\nkey = "{self.keys["command"]}"\ndirs = {{ inbox = {json.dumps(self.rights)} }}\n'
            f"admin = true\n{extra}"
        )

    @property
    def log(self) -> Path:
        """Where the daemon's output goes."""
        return self.folder / "daemon.log"

    def start(self, *options: str, twistd: tuple[str, ...] = (), environ: dict[str, str] | None = None) -> None:
        """Start the daemon and wait until it listens, always at the same port."""
        seen = self.log.stat().st_size if self.log.exists() else 0
        self.daemon = start_daemon(
            self.folder / "realized.toml", self.log, *options, twistd=twistd, environ=environ, program=self.program
        )
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            for line in self.log.read_bytes()[seen:].split(b"\n")[:-1]:  # what has its end is there as a whole
                if b'"event":"listening"' in line:
                    self.port = json.loads(line)["port"]
                    self.write_command_config()
                    self.write_daemon_config()
                    return
            if self.daemon.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"the daemon did not start:\n{self.log.read_text()[seen:]}")

    def write_command_config(self) -> None:
        """The command's configuration; the daemon is its peer ``hostb``."""
        (self.folder / "realize.toml").write_text(
            f'key = "command.key"\n[peers.hostb]\naddress = "127.0.0.1:{self.port}"\nkey = "{self.keys["daemon"]}"\n'
        )

    def records(self) -> list[dict]:
        """The daemon's log records so far; the last ones may not be written before it is stopped."""
        records = []
        for line in self.log.read_text().splitlines():
            with contextlib.suppress(ValueError):
                records.append(json.loads(line))
        return [record for record in records if isinstance(record, dict)]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End the daemon; the answer is how it exited."""
        if self.daemon is None:
            return 0
        self.daemon.send_signal(number)
        try:
            return self.daemon.wait(20)
        finally:
            if self.daemon.poll() is None:
                self.daemon.kill()
                self.daemon.wait()
            self.daemon = None

    def command(self, *arguments: str) -> list[str]:
        """The command line of the command."""
        return [*COMMAND, *map(str, arguments)]

    def spawn(self, *arguments: str, **options) -> subprocess.Popen:
        """Start the command."""
        return POPEN(
            self.command(*arguments),
            env={**ENVIRONMENT, "REALIZE_CONFIG": str(self.folder / "realize.toml")},
            stdin=subprocess.DEVNULL,
            **options,
        )

    def realize(self, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess:
        """Run the command to its end."""
        return run_program(
            self.command(*arguments),
            env={**ENVIRONMENT, "REALIZE_CONFIG": str(self.folder / "realize.toml")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )


def digests(folder: Path) -> dict[bytes, str]:
    """The digest of every regular file below a folder, by relative path."""
    found = {}
    for path in files_below(folder):
        with contextlib.suppress(FileNotFoundError), open(os.path.join(os.fsencode(folder), path), "rb") as file:
            found[path] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def files_below(folder: Path) -> list[bytes]:
    """The relative paths of all files below a folder."""
    top = os.path.join(os.fsencode(folder), b"")
    return [os.path.join(where, name)[len(top) :] for where, _, names in os.walk(top) for name in names]


def plant(folder: Path, seed: int, *, small: int, large: int, large_size: int = 4 << 20) -> dict[bytes, str]:
    """A tree of generated files with some odd names; the answer is what `digests` says of it."""
    rng = random.Random(seed)
    for number in range(small):
        where = folder / f"d{rng.randrange(5)}" / f"e{rng.randrange(3)}"
        where.mkdir(parents=True, exist_ok=True)
        (where / f"s{number}").write_bytes(rng.randbytes(rng.choice([0, 1, 100, 5_000, 20_000, 65_535])))
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(large):
        with (folder / f"large {number}").open("wb") as file:
            for _ in range(large_size >> 20):
                file.write(rng.randbytes(1 << 20))
            file.write(rng.randbytes(rng.randrange(100_000)))
    for name in (b"\xff\xfe.bin", b"new\nline", b"c:olon", b".hidden", b"-dash"):
        Path(os.fsdecode(os.path.join(os.fsencode(folder), name))).write_bytes(rng.randbytes(3_000))
    return digests(folder)


class Proxy:
    """A TCP proxy that cuts, stalls and spoils connections when it is told to."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.passed = 0
        """Bytes that went towards the daemon."""
        self.stalled = False
        """Whether nothing is passed on for now."""
        self.spoil = 0
        """How many of the next pieces get a bit flipped on their way."""
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._dead: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, *, both: bool = True) -> None:
        """Break all connections; or, not ``both``, only those of the clients, so that the daemon hears nothing."""
        pairs, self._pairs = self._pairs, []
        for client, server in pairs:
            _reset(client)
            if both:
                _reset(server)
            else:
                self._dead.append(server)

    def bury(self) -> None:
        """Let the daemon hear that the connections are gone which only lost their client."""
        dead, self._dead = self._dead, []
        for server in dead:
            _reset(server)

    def close(self) -> None:
        """Accept no more, and break what there is."""
        self._server.close()
        self.cut()
        self.bury()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                _reset(client)
                continue
            self._pairs.append((client, server))
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self._pass, args=(one, other, one is client), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket, up: bool) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(1 << 16):
                while self.stalled and any(one in pair for pair in self._pairs):
                    time.sleep(0.01)
                if self.spoil and len(data) > 100:
                    self.spoil -= 1
                    data = data[:50] + bytes([data[50] ^ 1]) + data[51:]
                other.sendall(data)
                self.passed += len(data) if up else 0
        if any(one in pair for pair in self._pairs):
            with contextlib.suppress(OSError):
                other.shutdown(socket.SHUT_WR)


def _reset(end: socket.socket) -> None:
    """Break a connection without a word, also while a thread reads from it."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.shutdown(socket.SHUT_RDWR)
    end.close()
