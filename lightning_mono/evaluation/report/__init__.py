"""A run told on one page: what it can do, how it learnt, what it cost."""

from lightning_mono.evaluation.report.attention import AttentionPicture
from lightning_mono.evaluation.report.write import write_report

__all__ = ["AttentionPicture", "write_report"]
