"""Published weights: one catalogue, where they lie on this machine, reading and checking and fetching them.

`catalogue` names every part that can be fetched, with its licence; `places` finds parts on disk; `checkpoints` reads
and loads tensors strictly, `pretrained` does so for models of `transformers`, and `lora` merges LoRAs; `inventory`
checks what is here and `fetch` gets what is not. Importing the catalogue needs no torch, so that the command line can
read names from it.
"""
