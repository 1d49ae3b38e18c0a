"""MoGe-2 (arXiv 2507.02546): metres, normals and the field of view of single frames."""
