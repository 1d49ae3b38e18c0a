"""Ends the program with one sentence where its Python is too old; reads as Python 2.7, as do the scripts that call it.

They import nothing else before, and annotate nothing, so that an old Python can read them up to here.
"""

import os
import subprocess
import sys

OLDEST = (3, 10)
NEWER = ("3.11", "3.13", "3.12", "3.10")


def require_python():
    """Exit with a message that names a Python to run this script again with, unless this one is recent enough."""
    if sys.version_info[:2] < OLDEST:
        sys.exit(too_old(sys.argv[0]))


def too_old(script):
    """The message: this Python, and the command that works or what to install."""
    this = "This is Python %d.%d" % sys.version_info[:2] + ", and " + script + " needs 3.10 or later"
    for number in NEWER:
        name = "python" + number
        if starts(name):
            return this + ": run it again with `" + name + " " + script + "`."
    return this + ": install Python 3.11 or 3.13, and run it again with `python3.11 " + script + "`."


def starts(name):
    """Whether a command on PATH starts; one of pyenv's may exist without a Python behind it."""
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        if os.access(os.path.join(folder, name), os.X_OK):
            with open(os.devnull, "w") as nowhere:
                try:
                    if subprocess.call([name, "-c", ""], stdout=nowhere, stderr=nowhere) == 0:
                        return True
                except OSError:
                    return False
    return False
