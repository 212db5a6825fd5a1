"""The algorithm: move the files of one store into another.

The mover knows `realize.store.interfaces.IStore` and nothing of where a store is.
It reports through `realize.mover.events` and never prints, logs or exits.
"""
