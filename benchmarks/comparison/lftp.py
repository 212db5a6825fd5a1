"""lftp, to a server of sftp."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from typing import Final

from attrs import evolve, frozen

from benchmarks.comparison.ssh import PROGRAMS as SSH_PROGRAMS
from benchmarks.comparison.ssh import serve_ssh, ssh_command
from benchmarks.comparison.tool import Guarantees, OptionedTool, Place, Start, Tool


@frozen
class Lftp(OptionedTool):
    """Its ``mirror``, which removes what it has sent."""

    @property
    def programs(self) -> frozenset[str]:
        """See `Tool`."""
        return SSH_PROGRAMS | {"lftp"}

    def serve(self, place: Place, start: Start) -> int:
        """See `Tool`."""
        return serve_ssh(place, start)

    def command(self, place: Place, port: int) -> Sequence[object]:
        """See `Tool`."""
        parallel = [f"--parallel={place.jobs}"] if place.jobs else []
        mirror = " ".join(["mirror -R --Remove-source-files", *parallel, *self.options])
        script = (
            f'set sftp:connect-program "{ssh_command(place)} -a -x"; set cmd:fail-exit yes; set net:max-retries 1; '
            f"open sftp://{getpass.getuser()}:@127.0.0.1:{port}; {mirror} {place.source} {place.destination}; bye"
        )
        return ["lftp", "--norc", "-c", script]


ONE: Final = Lftp("lftp", "lftp over sftp", "lftp mirror -R --Remove-source-files", Guarantees("ssh", "no", "no"))

TOOLS: Final[Sequence[Tool]] = (
    ONE,
    evolve(
        ONE,
        name="lftp-4",
        title="lftp over sftp, 4 at once",
        how=f"{ONE.how} --parallel=4",
        options=("--parallel=4",),
        workloads=("small", "mixture"),
    ),
)
