"""From a source of images and words to batches of tokens.

In the order of the way: ``sources`` read samples, ``prepare`` writes them once as litdata chunks,
``store`` reads them back, ``templates`` and ``render`` turn one into tokens, ``packing`` decides
which share a row, ``collate`` builds the batch, ``loader`` serves the whole schedule.
"""
