"""Sizes of files and memory in words."""

from __future__ import annotations


def size_text(size: float) -> str:
    """Bytes for people: "99 MB", "2.8 GB"."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"
