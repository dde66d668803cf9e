"""Adapters: other people's evaluation harnesses drive our models (docs/retention.md).

They need their packages, which are extras: ``lightning-mono[lm-eval]`` and ``[lmms-eval]``.
"""
