"""Training an adapter of EX-4D's kind: LoRA and camera encoder on the frozen transformer.

`adapter` has what is trained, `schedule` what a step learns from, `trainer` the loop. The transformer's classes are those
of inference (`ex4d.generation.wan.transformer`), built for training.
"""
