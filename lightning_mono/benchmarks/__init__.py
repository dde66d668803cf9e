"""Benchmarks as data: read, asked, scored, told."""
