"""The man pages, ``make man``: made from the options of the programs and the pages of ``docs/``, to say nothing twice.

What exists for click makes pages of its help alone; here they have locations, exit codes, files, examples and keys too.
"""
