"""A run from its locations to its end, for the command and for other programs.

It knows how to reconnect, to resume, to keep a time limit and a manifest, to bind rates at both ends, and to report
what came of it; it shows nothing and ends no process.
"""
