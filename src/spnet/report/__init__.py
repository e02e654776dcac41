"""The report page: one self-contained HTML file about one run or several. Nothing in it is loaded from anywhere."""

from spnet.report.page import write_report

__all__ = ["write_report"]
