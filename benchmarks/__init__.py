"""Benchmarks: how fast Realize is, and at what cost.  Run them as ``python -m benchmarks.NAME`` from the checkout."""
