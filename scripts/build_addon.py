"""Builds the installable add-on, `outputs/ex4d-<version>.zip`; `ex4d addon` does the same from an installed wheel.

Needs nothing but the standard library and pip or uv: no environment and no Blender, whose tool validates the zip where
there is one. The work is done in `backend/ex4d/addon/`.
"""

from require_python import require_python

if __name__ == "__main__":
    require_python()


def main():
    """Build the zip, and say where it is."""
    import argparse
    import sys
    from pathlib import Path

    from addon_package import addon_module

    command = addon_module("command")
    parser = argparse.ArgumentParser(description="Build the add-on's installable zip, with all it needs inside.")
    command.add_arguments(parser)
    options = parser.parse_args()
    try:
        command.run(options, Path(__file__).resolve().parent.parent / "outputs")
    except (addon_module("").AddonError, OSError) as error:
        from ex4d_core.errors import user_message

        sys.exit("build_addon.py: " + user_message(error))
    except KeyboardInterrupt:
        sys.exit(130)


def build(source, output=None):
    """Build the zip from a folder; returns its path. For tests, which run in the same Python."""
    from addon_package import addon_module

    return addon_module("zip_file").build(source, output)


if __name__ == "__main__":
    main()
