"""DepthCrafter (arXiv 2409.02095): depth of a whole clip by video diffusion, as the original EX-4D estimates it."""
