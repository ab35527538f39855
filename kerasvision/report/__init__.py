"""report.html: everything a run found out, on one page that needs no network."""

from kerasvision.report.examples import ReportExample, make_examples
from kerasvision.report.page import write_report

__all__ = ["ReportExample", "make_examples", "write_report"]
