"""Creates the environments, then runs `ex4d demo`: a backend and a Blender, each its own process, shoot the sample.

Needs nothing but the standard library. Further arguments are passed to `ex4d demo` (`--help` lists them).
"""

import os
import subprocess
import sys

if sys.version_info < (3, 8):  # noqa: UP036 - some systems' python3 is older
    sys.exit("This is Python {}.{}; run this script with 3.8 or later.".format(*sys.version_info))

import environments


def main():
    """Create what is missing, and become `ex4d demo`."""
    blender = environments.BLENDERS["5.0"]
    with environments.exit_on_setup_error():
        environments.ensure(environments.BACKEND, blender)
    command = [str(environments.BACKEND.command("ex4d")), "demo", "--blender", str(blender.python)]
    command += ["--out", os.path.relpath(environments.ROOT / "outputs" / "demo"), *sys.argv[1:]]
    if environments.WINDOWS:
        # exec there starts a second process and the shell continues at once.
        sys.exit(subprocess.call(command))
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
