"""Benchmarks of `ex4d bench`: each prints a table with ratios; no test depends on them."""

# Of `ex4d bench generate`, in its order. Here, so that the command line knows them without torch.
PARTS = ("passes", "jobs", "memory", "gpus")
