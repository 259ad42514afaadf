"""The command line from a checkout; see `python run.py --help`."""

import sys

from uniprune.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
