"""Training of EX-4D's adapter: simulated masks, data sets of encoded samples, and the trainer.

`samples.py`, `shards.py` and `manifest.py` say what a data set is; what makes one writes them, and the trainer reads
them. `adapter.py` has what is trained, `schedule.py` what a step learns from, `trainer.py` the loop; the transformer's
classes are those of inference (`ex4d.generation.wan.transformer`). No other room than `cli` imports anything of this.
"""
