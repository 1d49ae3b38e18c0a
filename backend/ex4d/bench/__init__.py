"""Benchmarks of `ex4d bench`: each prints a table with ratios; no test depends on them."""
