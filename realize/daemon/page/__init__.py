"""The page for people beside the metrics: what the daemon moves, what waits, what is wrong; read-only.

`realize.daemon.page.collecting` asks the daemon, `realize.daemon.page.resource` answers requests; the rest is pure.
Only `realize.daemon.page.withholding` decides what is not shown.
"""
