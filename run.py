"""The command line from a checkout; see `python run.py --help`."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - before anything that older versions cannot read
    sys.exit(
        "error: UniPrune needs Python 3.11 or newer, and {} is {}.{}; run `make demo PYTHON=python3.11`, then "
        "`. .venv/bin/activate`".format(sys.executable, *sys.version_info[:2])
    )

if __name__ == "__main__":
    try:
        from uniprune.__main__ import program
    except KeyboardInterrupt:  # from here on, `program` reports it
        sys.stderr.write("interrupted\n")
        sys.exit(130)

    sys.exit(program())
