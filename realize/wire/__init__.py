"""The wire protocol: boxes, commands, streams, TLS, and the connections that carry them.

Nothing here touches a file; `realize.store` gives the commands their meaning.
"""
