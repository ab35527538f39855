"""What a run found out: report.html, one page that needs no network, and a model card."""

from kerasvision.report.card import write_card
from kerasvision.report.detector import detector_facts
from kerasvision.report.detector_examples import DetectorExample, choose_images
from kerasvision.report.examples import ReportExample, make_examples
from kerasvision.report.page import write_metrics, write_report
from kerasvision.report.segmenter import SegmenterExample, choose_maps

__all__ = [
    "DetectorExample",
    "ReportExample",
    "SegmenterExample",
    "choose_images",
    "choose_maps",
    "detector_facts",
    "make_examples",
    "write_card",
    "write_metrics",
    "write_report",
]
