"""What a run found out: report.html, one page that needs no network, and a model card."""

from kerasvision.report.card import write_card
from kerasvision.report.examples import ReportExample, make_examples
from kerasvision.report.page import write_report

__all__ = ["ReportExample", "make_examples", "write_card", "write_report"]
