"""What Realize adds to Twisted: the daemon, for ``twistd realized``."""

from twisted.application.service import ServiceMaker

realized = ServiceMaker(
    "realized",
    "realize.daemon.tap",
    "Serves directories to the peers that may move files into and out of them.",
    "realized",
)
