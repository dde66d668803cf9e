"""Ablations: a base recipe, what is changed of it, and seeds; then a table with error bars.

`load` reads a study, `cells` are its runs, `runner` runs those that are not done, `results` adds
them up, `report` writes the page.
"""
