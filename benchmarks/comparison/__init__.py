"""Realize beside the tools that people move files with today: workloads, tools, measurement, results.

`benchmarks.compare` measures, `benchmarks.page` puts the figures into the page.
"""
