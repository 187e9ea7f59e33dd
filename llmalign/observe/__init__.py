"""What people see of a run: its metrics and samples on disk, the live display, the report."""

from llmalign.observe.live import LiveDisplay
from llmalign.observe.log import RunLog, read_metrics, write_json, write_samples
from llmalign.observe.report import write_report
from llmalign.observe.trackers import Tracker, open_trackers

__all__ = [
    "LiveDisplay",
    "RunLog",
    "Tracker",
    "open_trackers",
    "read_metrics",
    "write_json",
    "write_report",
    "write_samples",
]
