"""The reference of both command lines, ``make reference``: docs/commands.md, made from the options of the programs."""
