"""Errors that are meant for the person at the keyboard.

Each is one line: what is wrong, where (file, key or record), and what to do about it. The command
line prints the line and exits with 2; everything else that is raised is a bug of ours.
"""

from __future__ import annotations


class UserError(Exception):
    """Something the user can put right."""


class RecipeError(UserError):
    """A recipe that cannot run: every problem found, one a line."""


class AssetError(UserError):
    """A model or data set that ships inside a package and could not be had."""


class DataError(UserError):
    """Samples that cannot be read, or a data set with nothing in it."""


class CheckpointError(UserError):
    """A checkpoint that cannot be written, read or resumed from."""


class TrainingError(UserError):
    """A run that has to stop, because going on would spoil it."""
