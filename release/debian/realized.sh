#!/bin/sh
# The daemon in the foreground, as the unit runs it: `realized --check-config`, `realized --version`. For root it runs as the
# user of the unit, who alone may read the key, but may not enter /root.
set -- /opt/realize/bin/twistd --nodaemon --pidfile= --rundir=/ realized "$@"
if [ "$(id -u)" -eq 0 ]; then
    set -- setpriv --reuid=realize --regid=realize --init-groups -- "$@"
fi
exec "$@"
