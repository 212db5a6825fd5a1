"""What shells offer as a command line is typed.

`realize completion SHELL` prints a script with all that the command line itself can say: commands, options, choices
(`grammar` finds them in click's objects, `scripts` writes them down).
For the rest (peers, their directories, standing moves) the script starts `realize` with `realize.cli.start.ASKED` set,
and `words` answers, without loading the command.
"""
