"""The daemon: what ``twistd realized`` runs.

`realize.daemon.tap` is the plugin's door, `realize.daemon.service` the service behind it.
"""
