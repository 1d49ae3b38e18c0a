"""Training of EX-4D's adapter: simulated masks, data sets of encoded samples, and the trainer.

`samples.py`, `shards.py` and `manifest.py` say what a data set is; what makes one writes them, and the trainer reads
them. Nothing here is imported by the other rooms but `cli`.
"""
