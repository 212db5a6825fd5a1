"""When something is to happen, and how fast, by the clock on the wall.

Plain values without timers or I/O: moments are seconds since the epoch, as `time.time` has them, and come from outside.
"""
