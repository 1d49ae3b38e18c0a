"""Benchmarks behind `ex4d bench`: each prints a table with ratios, and none of them decides a test."""
