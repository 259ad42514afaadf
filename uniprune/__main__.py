"""`python -m uniprune`: the command line, as `uniprune` or `python run.py`."""

import sys

from uniprune.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
