"""The one `Metrics` of a test process: Prometheus takes each metric once."""

from uic.jobs.serving.read.metrics import Metrics

METRICS = Metrics()
