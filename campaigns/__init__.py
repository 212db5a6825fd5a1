"""Campaigns: real processes are killed, cut off, filled up and unplugged, and an oracle says what is left."""
