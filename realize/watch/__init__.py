"""Watching the sources of standing moves on this machine: which files have settled, and may be moved.

Above the local store, whose walker and looks it uses, and below `realize.moves`; it moves nothing.
"""
