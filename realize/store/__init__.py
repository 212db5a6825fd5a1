"""What can be done to a directory, whether it is on this machine or a peer's.

`realize.store.interfaces` says what that is.
This package may import the wire and the values below it, never the mover, the daemon or the command.
"""
