"""The metrics of both programs, as Prometheus takes them."""
