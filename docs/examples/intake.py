"""A service that takes in files of all whose public keys are in a directory, and says what has arrived.

    python docs/examples/intake.py tcp:9771 KEY INBOX KEYS

KEYS has a file NAME.pub for each peer; one that is added lets its holder in within a second, and one that is removed
shuts the holder out.
"""

import sys
from pathlib import Path
from typing import Any

import attrs
from twisted.application.internet import TimerService
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.logger import globalLogBeginner, textFileLogObserver

from realize.config import Config, DirectoryConfig, PeerConfig, Right, ThrottleConfig
from realize.daemon import RealizedService
from realize.errors import ConfigError
from realize.keys import load_identity, read_public_key


class Intake(MultiService):
    """A daemon, and what looks after it."""

    def __init__(self, reactor: Any, endpoint: str, key: str, inbox: Path, keys: Path) -> None:
        super().__init__()
        self.inbox, self.keys = inbox, keys
        self.seen: set[Path] = set()
        config = Config(
            key=load_identity(key),
            listen=[endpoint],
            directories={"inbox": DirectoryConfig(inbox)},
            peers=self.peers(),
            throttle=ThrottleConfig(connection_bps=20 << 20),
        )
        self.daemon = RealizedService(config, reactor)
        self.daemon.setServiceParent(self)
        TimerService(1.0, self.look).setServiceParent(self)

    def peers(self) -> dict[str, PeerConfig]:
        """Those whose keys are there now."""
        rights = {"inbox": {Right.CREATE}}
        return {path.stem: PeerConfig(read_public_key(str(path)), rights=rights) for path in self.keys.glob("*.pub")}

    async def look(self) -> None:
        """Say what has arrived, and let in who was added."""
        # A name with a dot before it may be that of a file that has not arrived as a whole.
        arrived = {path for path in self.inbox.rglob("*") if path.is_file() and not path.name.startswith(".")}
        for path in sorted(arrived - self.seen):
            print(f"arrived: {path.relative_to(self.inbox)}", flush=True)
        self.seen = arrived
        config = attrs.evolve(self.daemon.config, peers=self.peers())
        if config != self.daemon.config:
            await self.daemon.reload(config)


async def main(reactor: Any, *words: str) -> None:
    """Serve until a signal comes."""
    if len(words) != 4:
        raise SystemExit(__doc__)
    endpoint, key, inbox, keys = words
    try:
        intake = Intake(reactor, endpoint, key, Path(inbox), Path(keys))
        intake.startService()
    except ConfigError as error:
        raise SystemExit(f"intake: {error}") from error
    reactor.addSystemEventTrigger("before", "shutdown", intake.stopService)
    print(f"listening on port {getattr(intake.daemon.addresses[0], 'port', None)}", flush=True)
    await Deferred()


if __name__ == "__main__":
    # What the daemon has to say goes to the log of the program.
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
    react(main, sys.argv[1:])
