"""A daemon without a configuration file, beside whatever else the application does.

    twistd --nodaemon --pidfile= --python docs/examples/inbox.tac

It serves ``inbox`` in the working directory to the holder of the key in ``camera.pub``; its own key is ``realized.key``.
"""

import os

from twisted.application.service import Application
from twisted.internet import reactor

from realize.config import Config, DirectoryConfig, PeerConfig, Right
from realize.daemon import RealizedService
from realize.keys import read_public_key

config = Config(
    key="realized.key",
    listen=[os.environ.get("LISTEN", "*:9771")],
    directories={"inbox": DirectoryConfig("inbox")},
    peers={"camera": PeerConfig(read_public_key("camera.pub"), rights={"inbox": {Right.CREATE}})},
)
application = Application("inbox")
RealizedService(config, reactor).setServiceParent(application)
