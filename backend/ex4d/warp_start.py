"""Starts NVIDIA Warp without its greeting and its warnings, which would end up in the output of the calling program."""

from __future__ import annotations

import os
import sys
import tempfile
import threading

import warp as wp

# What Warp's native library writes on any machine without an NVIDIA driver, where it runs on the processor.
_NO_DRIVER = b"Could not find or load the NVIDIA CUDA driver"
_starting = threading.Lock()
_started = False


def start_warp() -> None:
    """Start Warp; does nothing after the first call.

    Python warnings of the start (such as that of Python 3.10) are silenced by level, later ones are shown. The note of
    the missing driver comes from native code, which writes to the file descriptor; anything else written there in
    the meantime is passed on.
    """
    global _started
    with _starting:
        if _started:
            return
        wanted = max(wp.config.log_level, wp.LOG_WARNING)
        wp.config.log_level = max(wanted, wp.LOG_ERROR)
        try:
            written = _written_to_stderr(wp.init)
        finally:
            wp.config.log_level = wanted
        other = b"".join(line for line in written.splitlines(keepends=True) if _NO_DRIVER not in line)
        if other:
            os.write(2, other)
        _started = True


def _written_to_stderr(work) -> bytes:
    """Do some work; returns what it wrote to the file descriptor of standard error, or nothing where there is none."""
    if sys.stderr is not None:
        sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # started without standard error, as a service may be
        work()
        return b""
    try:
        with tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), 2)
            try:
                work()
            finally:
                os.dup2(kept, 2)
            file.seek(0)
            return file.read()
    finally:
        os.close(kept)
