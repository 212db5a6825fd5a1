"""The daemon: what ``twistd realized`` runs.

`realize.daemon.tap` is the twistd plugin, `realize.daemon.service` the service that it creates.
"""
