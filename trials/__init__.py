"""Trials on booted systems: ``make try-systemd``; see ``docs/testing.md``."""
