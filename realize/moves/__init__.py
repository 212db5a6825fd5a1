"""Standing moves: what the daemon moves by itself, as files settle and by the clock.

Imports nothing that parses, shows or listens: commands come from `realize.daemon`, and so do metrics.
"""
