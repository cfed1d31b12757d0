"""`python -m bgruntime`: see `bgruntime.cli`."""

from __future__ import annotations

import sys

from bgruntime.cli import main

if __name__ == "__main__":
    sys.exit(main())
