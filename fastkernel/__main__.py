"""The command, as ``python -m fastkernel``."""

import sys

from fastkernel.cli import main

if __name__ == "__main__":
    sys.exit(main())
