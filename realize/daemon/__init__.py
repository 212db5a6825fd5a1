"""The daemon: what ``twistd realized`` runs, and `RealizedService` for any other Twisted application.

`realize.daemon.tap` is the twistd plugin, `realize.daemon.twistd_service` what it makes, and `realize.daemon.service`
the daemon itself, which knows of no process.
"""

from realize.daemon.service import RealizedService

__all__ = ["RealizedService"]
