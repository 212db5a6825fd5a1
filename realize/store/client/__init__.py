"""A store at the other end of a connection."""
