"""Runs every check of the project, or the tests that are named; `--help` lists how. The work is in `all_checks.py`.

Needs nothing but the standard library to start; environments that are missing are created first.
"""

from require_python import require_python

if __name__ == "__main__":
    require_python()
    from all_checks import start

    start()
