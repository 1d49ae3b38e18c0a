"""Published weights: a catalogue, their places on this machine, and how they are read, checked and fetched.

`catalogue` names every part that can be fetched, with its licence; `places` finds parts on disk, and `wan_files` all
that the engine wan needs; `checkpoints` reads and loads tensors strictly, `pretrained` does so for models of
`transformers`, and `lora` merges LoRAs; `converted` keeps networks as they are used, for `parallel_files` to read;
`inventory` checks the files that are here and `fetch` downloads those that are not. Importing the catalogue needs no
torch, so that the command line can read names from it.
"""
