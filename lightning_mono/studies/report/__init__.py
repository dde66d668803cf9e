"""What a person reads of a study: the table, the picture and the page."""

from lightning_mono.studies.report.table import table
from lightning_mono.studies.report.write import write_report

__all__ = ["table", "write_report"]
