"""The metrics of both programs, in Prometheus' formats."""
