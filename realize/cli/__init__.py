"""The `realize` command: one module per sub-command, and what they share.

Commands parse their own options with click and import everything heavy (Twisted, rich, cryptography) when they run, so
that `realize --help` answers at once.
This package may import everything; nothing imports it.
"""
