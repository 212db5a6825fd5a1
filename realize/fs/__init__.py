"""The file system, as far as it is needed here: system calls, directories, locks, identities; no Twisted, no wire."""
