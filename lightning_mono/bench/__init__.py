"""Measurements of this machine, run from the command line."""
