"""Sequence parallelism: one pass of the transformer over several GPUs of one host."""
