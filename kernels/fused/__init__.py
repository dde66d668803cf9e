"""Triton kernels for blocks with one set of weights per modality, a module for each kind of block.

Importing one of them imports Triton; ``lightning_mono.kernels`` does so only when asked for it.
Set ``TRITON_INTERPRET=1`` before the first is imported, and kernels run on a CPU, slowly.
"""
