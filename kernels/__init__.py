"""How tokens reach the weights of their modality.

A kernel is a callable over (tokens, layout, text module, visual module). It owns no parameters and
gives the same numbers as ``masked_dense``, forward and backward; it is held by each routed block as
a plain attribute, so that exchanging it leaves every parameter name untouched.
"""

from __future__ import annotations

if __name__ == "lightning_mono.kernels":
    from lightning_mono.kernels.contract import Kernel, Routed
    from lightning_mono.kernels.gathered import gathered
    from lightning_mono.kernels.masked_dense import masked_dense
    from lightning_mono.kernels.select import KERNELS, active, choose, use, why_not

    __all__ = [
        "KERNELS",
        "Kernel",
        "Routed",
        "active",
        "choose",
        "gathered",
        "masked_dense",
        "use",
        "why_not",
    ]
else:
    # Imported by its bare name, from the repository's root. `kernels` is also a package that
    # transformers looks for: it must find that this is not the one, and nobody may use this copy.
    def __getattr__(name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ImportError("import lightning_mono.kernels, not kernels")
