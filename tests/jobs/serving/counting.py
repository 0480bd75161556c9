"""The one `ServiceMetrics` of a test process: Prometheus takes each metric once."""

from uic.jobs.serving.read.metrics import metrics_of_process

METRICS = metrics_of_process()
