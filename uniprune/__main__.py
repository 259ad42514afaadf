"""`python -m uniprune`: the command line, as `uniprune` or `python run.py`."""

import signal
import sys


def program() -> int:
    """Run the command line as a process of its own: an interrupt at any moment gives one line."""
    try:
        from uniprune.cli.main import main

        return main()
    except KeyboardInterrupt:  # while modules were imported, or a second one while the first was printed
        sys.stderr.write("interrupted\n")
        return 130
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # what is left is the end of the interpreter


if __name__ == "__main__":
    sys.exit(program())
