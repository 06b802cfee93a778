"""``python -m fastkernel.cli``."""

import sys

from fastkernel.cli import main

sys.exit(main())
