"""`python -m spnet` is `spnet`."""

import sys

from spnet.cli import main

sys.exit(main())
