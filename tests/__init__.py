"""The tests; `tests.processes` and `tests.loopback` are what several of them share."""
