"""``python -m lightning_mono``."""

import sys

from lightning_mono.cli import main

sys.exit(main())
