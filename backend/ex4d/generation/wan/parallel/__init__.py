"""Sequence parallelism: one shot on several GPUs of one host.

With an even number of ranks, one half runs the positive prompt of classifier-free guidance and the other the negative
one. The ranks that share a prompt divide its tokens among them (Ulysses: Jacobs et al., 2023). All ranks run the same
denoising steps on the same latents. Rank 0 is the engine's own process.

`group` is the process group, `processes` starts the other ranks and sends them work, `rank` is their program.
"""
