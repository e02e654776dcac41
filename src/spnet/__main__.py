"""`python -m spnet` is `spnet`."""

import sys

from spnet.cli import main

if __name__ == "__main__":  # the other processes of `--devices N` load this file too
    sys.exit(main())
