"""Trains a recipe in which one process' loss is not a number once: poisoned.py RECIPE RANK STEP."""

from __future__ import annotations

import os
import sys
from itertools import count
from typing import Any

from torch import Tensor

from lightning_mono import module
from lightning_mono.cli import main

recipe, rank, step = sys.argv[1], sys.argv[2], int(sys.argv[3])

if os.environ.get("LOCAL_RANK", "0") == rank:
    loss_of, steps = module.next_token_loss, count(1)

    def poisoned(*args: Any) -> Tensor:
        return loss_of(*args) * (float("nan") if next(steps) == step else 1.0)

    module.next_token_loss = poisoned

sys.exit(main(["fit", recipe]))
