"""Kernels are interpreted here: Triton has to know before the first one is defined."""

import os

os.environ["TRITON_INTERPRET"] = "1"
