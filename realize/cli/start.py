"""Where the command `realize` starts: shells that ask for words get them at once, and everybody else the command.

Nothing else is imported until it is known who asks.
"""

from __future__ import annotations

import gc
import os
import sys
from typing import Final

ASKED: Final = "_REALIZE_COMPLETE"
"""The variable of the environment by which the scripts of `realize completion` ask; see `realize.cli.completion`."""


def main() -> None:
    """Answer a shell, or run the command line of this process and exit."""
    if ASKED in os.environ:
        from realize.cli.completion.words import answer

        if not answer(sys.argv[1:]):
            # The scripts show nothing of stderr; who has exported the variable must not believe that files were moved.
            sys.exit(f"realize: error: {ASKED} is set, which only scripts for completion do: unset it")
    else:
        # What is loaded from here on stays: to look through it for garbage again and again takes a tenth of the start.
        # `realize.cli.runner` switches it on again when everything is there.
        gc.disable()
        from realize.cli.stand_ins import stand_in

        stand_in()
        from realize.cli.main import main as run_command

        run_command()


if __name__ == "__main__":
    main()
