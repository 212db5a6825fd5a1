"""Runs a page of `docs/howto`: its files are written and its commands run, on machines that are folders of this one.

A fenced block whose first line is ``# MACHINE: PATH`` is a file; one of TOML is merged into the file that is there,
table by table. In a block of ``console``, ``MACHINE$`` and ``MACHINE#`` begin a command, and what follows is its
output, in which ``…`` stands for anything. A command ends with code 0, or with N where ``# exit code N`` is behind it.
Other blocks are not run.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from blake3 import blake3

from realize.keys import generate_identity, load_identity, write_identity
from tests.processes import COMMAND, ENVIRONMENT, ROOT, free_port, run_program, start_daemon, wait_for

PATHS = re.compile(r"(?<![\w.~/}-])/(?=(?:etc|srv|store|usr/local|var|run)/)")
"""Where an absolute path of a page begins: it becomes one below the folder of its machine."""
NEEDS_ROOT = {"apt", "chgrp", "chown", "journalctl", "nft", "useradd", "userdel", "usermod"}
"""What is left out: it would change this machine."""
HAVE_DAEMONS = {"nas", "camera"}
"""The machines whose daemon has a key already."""
LOGGED_S = 10
"""How long a record may take to its log, which is not written before the answer."""
AS_DAEMON = "sudo -u realize /opt/realize/bin/"
"""How a program is run as the user of the daemon; here it is our own user."""
PLAIN = re.compile(r"realize( +[\w~/.:=-]+)+")
"""A command that the shell does nothing to but starting it; it is started warm."""
PLACEHOLDER = "MCowBQYDK2VwAyEA..."
NEW = "MCowBQYDK2VwAyEB..."
"""What stands for the first key of a peer, and for the one that it makes on the page."""
B3SUM = f"""#!{sys.executable}
import sys
from blake3 import blake3
for name in sys.argv[1:]:
    print(blake3(open(name, "rb").read()).hexdigest(), "", name)
"""
"""Stands in for b3sum, as far as the pages use it."""


def merged(former: str, added: str) -> str:
    """A file of TOML with more tables: one of the same name is replaced, and above them a key of the same name."""
    tables: dict[str, list[str]] = {"": []}
    for text in (former, added):
        name = ""
        fresh: dict[str, list[str]] = {}
        for line in text.splitlines():
            if re.match(r"\[[\w.-]+\]", line):
                name = line.partition("]")[0]
            fresh.setdefault(name, []).append(line)
        keys = {line.partition("=")[0].strip() for line in fresh.get("", []) if "=" in line}
        tables[""] = [each for each in tables[""] if each.partition("=")[0].strip() not in keys] + fresh.pop("", [])
        tables |= fresh
    return "\n".join(line for lines in tables.values() for line in lines) + "\n"


class Machine:
    """A folder with the paths, the keys and perhaps the daemon of a machine."""

    def __init__(self, world: World, name: str):
        self.world, self.name, self.root = world, name, world.folder / name
        self.daemon: subprocess.Popen | None = None
        self.port = free_port()
        for each in (
            "etc/realize",
            "srv/inbox",
            "home/.config/realize",
            "var/lib/realize",
            "usr/local/bin",
            "run",
            "etc/systemd/system",
        ):
            (self.root / each).mkdir(parents=True)
        (self.root / "run").chmod(0o700)
        identity = generate_identity()
        write_identity(str(self.root / "home/.config/realize/realize.key"), identity)
        if name in HAVE_DAEMONS:
            write_identity(str(self.root / "etc/realize/realized.key"), identity)
        self.public = identity.public_key.base64
        stand_in = self.root / "usr/local/bin/b3sum"
        stand_in.write_text(B3SUM)
        stand_in.chmod(0o755)

    @property
    def config(self) -> Path:
        """The configuration of the daemon."""
        return self.root / "etc/realize/realized.toml"

    @property
    def environ(self) -> dict[str, str]:
        """What its processes have."""
        path = f"{self.root}/usr/local/bin:{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {"HOME": f"{self.root}/home", "XDG_RUNTIME_DIR": f"{self.root}/run", "PATH": path}

    def here(self, text: str) -> str:
        """A text of the page with the paths, addresses and keys of this run."""
        text = PATHS.sub(f"{self.root}/", text).replace("*:9771", f"127.0.0.1:{self.port}")
        return re.sub(r"\b(\w+)\.example:9771", lambda found: f"127.0.0.1:{self.world.machine(found[1]).port}", text)

    def write(self, path: str, text: str) -> None:
        """A file as the page has it."""
        where = Path(PATHS.sub(f"{self.root}/", path).replace("~", f"{self.root}/home"))
        where.parent.mkdir(parents=True, exist_ok=True)
        lines, peer = [], ""
        for line in self.here(text).splitlines():
            if found := re.match(r"\[peers\.(\w+)", line):
                peer = found[1]
            lines.append(self.world.with_keys(line, peer) if peer else line)
        text = "\n".join(lines) + "\n"
        if where == self.config and where.exists() and self.daemon is None:
            self.start()  # with the former configuration, for the page says how the daemon gets this one
        if where.suffix == ".toml" and where.exists():
            text = merged(where.read_text(), text)
        where.write_text(text)
        where.chmod(0o644)

    def start(self) -> None:
        """Start the daemon, and wait until it says that it is ready."""
        log = self.root / "daemon.log"
        control = self.root / "run/realize/control.sock"
        self.daemon = start_daemon(self.config, log, environ=self.environ)
        wait_for(lambda: control.exists() or self.daemon.poll() is not None)
        assert self.daemon.poll() is None, log.read_text()

    def stop(self) -> None:
        """End the daemon, if there is one."""
        if self.daemon is not None:
            self.daemon.send_signal(signal.SIGTERM)
            self.daemon.wait(20)
            (self.root / "run/realize/control.sock").unlink(missing_ok=True)
            self.daemon = None

    def systemctl(self, verb: str) -> None:
        """As systemd would, with the unit of the daemon; ``enable`` is for the next boot, and starts nothing."""
        if verb in {"stop", "restart"}:
            self.stop()
        if verb in {"start", "restart"}:
            self.start()
        if verb == "reload":
            self.shell(f"realize reload --config {self.config}", 0)

    def shell(self, command: str, code: int) -> str:
        """What a command says on both streams; it has to end with that code."""
        words = [re.sub("^~(?=/|$)", f"{self.root}/home", word) for word in command.split()]
        ended = run_program(
            [*COMMAND, *words[1:]] if PLAIN.fullmatch(command) else ["bash", "-c", command],
            env={**ENVIRONMENT, **self.environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.root / "home",
            text=True,
        )
        assert code == ended.returncode, f"{command}\n{ended.stdout}"
        return ended.stdout.replace(f"{self.root}/home", "~").replace(str(self.root), "")

    def run(self, line: str, output: list[str]) -> None:
        """A command of the page, and what it says."""
        command, _, code = line.partition("  # exit code ")
        words = command.split()
        if words[0] in NEEDS_ROOT:
            return
        if words[0] == "systemctl":
            self.systemctl(words[1])
            return
        command = command.removeprefix(AS_DAEMON).replace(" deploy/", f" {ROOT}/deploy/")
        pattern = "".join(r"(.*\n)*" if each == "…" else rf"{like(each)}\n" for each in output)
        said = self.shell(self.here(command), int(code or 0))
        deadline = time.monotonic() + LOGGED_S
        while "/log/" in command and not re.fullmatch(pattern, said) and time.monotonic() < deadline:
            time.sleep(0.05)
            said = self.shell(self.here(command), int(code or 0))
        if output:
            assert re.fullmatch(pattern, said), f"{line}\nsays\n{said}\nand not\n" + "\n".join(output)


def like(line: str) -> str:
    """The pattern of a line of output."""
    return re.escape(line.rstrip()).replace("…", ".*") + " *"


class World:
    """The machines of a page. `nas` serves `/srv/inbox` to `camera`, which has three files in `/srv/camera`.

    The daemon of `camera` serves nobody, and starts when the page changes its configuration.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.machines: dict[str, Machine] = {}

    def begin(self) -> None:
        """Give them what each page takes for granted, and start the daemon of `nas`."""
        nas, camera = self.machine("nas"), self.machine("camera")
        address = f'\n[peers.nas]\naddress = "nas.example:9771"\nkey = "{PLACEHOLDER}"\n'
        served = 'key = "realized.key"\nlisten = ["*:9771"]\n\n[dirs.inbox]\npath = "/srv/inbox"\n\n'
        nas.write(
            "/etc/realize/realized.toml",
            f'{served}[peers.camera]\nkey = "{PLACEHOLDER}"\ndirs = {{ inbox = ["write"] }}\n',
        )
        camera.write("~/.config/realize/realize.toml", address)
        camera.write("/etc/realize/realized.toml", f"{served}{address}")
        (camera.root / "srv/camera").mkdir()
        for name in ("a", "b", "c"):
            (camera.root / f"srv/camera/{name}.jpg").write_bytes(name.encode() * 100_000)
        nas.start()

    def machine(self, name: str) -> Machine:
        """The machine of that name, which is made if it is new."""
        if name not in self.machines:
            self.machines[name] = Machine(self, name)
        return self.machines[name]

    def with_keys(self, line: str, peer: str) -> str:
        """A line of the table of a peer, with its keys."""
        if PLACEHOLDER in line:
            line = line.replace(PLACEHOLDER, self.machine(peer).public)
        if NEW in line:
            [made] = self.machine(peer).root.glob("**/new.key")
            line = line.replace(NEW, load_identity(str(made)).public_key.base64)
        return line

    def run(self, text: str) -> int:
        """Do all that a page says; the answer is how many commands that were."""
        count = 0
        for language, block in re.findall(r"^```(\w+)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
            first, _, rest = block.partition("\n")
            if found := re.match(r"# (\w+): ([/~]\S+)", first):
                self.machine(found[1]).write(found[2], rest)
            elif language == "console":
                for name, line, output in commands(block):
                    self.machine(name).run(line, output)
                    count += 1
        return count

    def arrived(self, name: str = "inbox") -> dict[str, str]:
        """The files below a directory of `nas`, with their digests."""
        top = self.machine("nas").root / "srv" / name
        found = {}
        for path in sorted(top.rglob("*")):
            if path.is_file() and not path.name.startswith(".realize"):
                with contextlib.suppress(FileNotFoundError):  # a partial, which has got its final name just now
                    found[str(path.relative_to(top))] = blake3(path.read_bytes()).hexdigest()
        return found

    def close(self) -> None:
        """End all daemons, and remove the folders."""
        for each in self.machines.values():
            each.stop()
        shutil.rmtree(self.folder)


def commands(block: str) -> list[tuple[str, str, list[str]]]:
    """Machine, command and output of each command in a block."""
    found: list[tuple[str, str, list[str]]] = []
    for line in block.replace("\\\n", " ").splitlines():
        if prompt := re.match(r"(\w+)[#$] +(.+)", line):
            found.append((prompt[1], prompt[2], []))
        else:
            found[-1][2].append(line)
    return found
