"""What Realize adds to Twisted: the daemon, for ``twistd realized``, and two prefixes of endpoint strings."""

from twisted.application.service import ServiceMaker

from realize.throttle.endpoints import ThrottleParser
from realize.wire.pinned_endpoint import PinnedParser

realized = ServiceMaker(
    "realized",
    "realize.daemon.tap",
    "Serves directories to the peers that may move files into and out of them.",
    "realized",
)
throttle_prefix = ThrottleParser()
realize_prefix = PinnedParser()
