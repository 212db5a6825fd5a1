"""An ssh server of our own, for whoever runs this, and how to reach it."""

from __future__ import annotations

import getpass
import os
from pathlib import Path
from typing import Final

from benchmarks.comparison.credentials import HOST_ALIAS, make_credentials
from benchmarks.comparison.programs import path_of
from benchmarks.comparison.tool import Place, Start
from tests.processes import free_port

PROGRAMS: Final = frozenset({"ssh", "sshd"})

PRIVILEGE_SEPARATION: Final = Path("/run/sshd")
"""The directory that sshd wants to find when root starts it; the service makes it otherwise."""


def serve_ssh(place: Place, start: Start) -> int:
    """Start it on a port that is free; returns the port.

    It is in its defaults but for what it may ask and say.
    bash reads ~/.bashrc for each command of a login over ssh unless SHLVL says that it is not the first shell; how long
    that takes is a matter of the user.
    """
    made, port = make_credentials(place.scratch), free_port()
    as_root = os.geteuid() == 0
    if as_root:
        PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
    config = place.scratch / "sshd_config"
    config.write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {made.host_key}\nAuthorizedKeysFile {made.authorized_keys}\n"
        f"PidFile none\nStrictModes no\nUsePAM {'yes' if as_root else 'no'}\nPermitRootLogin prohibit-password\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPrintMotd no\nPrintLastLog no\n"
        "Subsystem sftp internal-sftp\nSetEnv SHLVL=1\n"
    )
    start([path_of("sshd"), "-D", "-e", "-f", config], port)
    (place.scratch / "ssh_config").write_text(
        f"Host *\nIdentityFile {made.user_key}\nIdentitiesOnly yes\nUserKnownHostsFile {made.known_hosts}\n"
        f"GlobalKnownHostsFile /dev/null\nHostKeyAlias {HOST_ALIAS}\nBatchMode yes\nLogLevel ERROR\n"
        f"User {getpass.getuser()}\n"
    )
    return port


def ssh_command(place: Place) -> str:
    """How to call ssh, without a host."""
    return f"ssh -F {place.scratch}/ssh_config"
