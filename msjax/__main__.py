"""`python -m msjax` is `msjax`."""

import sys

from msjax.cli import main

if __name__ == "__main__":
    sys.exit(main())
