"""Picks, from the output of pip, uv or a package manager, the line that says why it failed."""

from __future__ import annotations

import re

# What the tools print about a failed connection or a full disk before they end with a consequence, such as that no
# version of a package was found.
_CAUSES = re.compile(
    r"ProxyError|SSLError|SSLCertVerification|certificate|NewConnectionError|ConnectTimeout|ReadTimeout|timed out|"
    r"NameResolution|resolve|No space left|Disk quota|Read-only file system|HASH"
)
_LONGEST = 300


def telling_line(output: str) -> str:
    """The tool's own line on what went wrong: the last cause that it named, else its last error, else its last line."""
    lines = [line.strip() for line in output.splitlines()]
    lines = [line for line in lines if line and not line.startswith(("[notice]", "$ "))]
    causes = [line for line in lines if _CAUSES.search(line)]
    errors = [line for line in lines if re.match(r"(error|E|×|cause|Caused by)\b", line, re.IGNORECASE)]
    chosen = next((group[-1] for group in (causes, errors, lines) if group), "it printed nothing")
    # pip's own line begins with how often it will try again.
    chosen = chosen.rpartition("after connection broken by ")[2].strip("'")
    return chosen if len(chosen) <= _LONGEST else chosen[: _LONGEST - 3] + "..."
