"""Sets up what is missing, then runs `ex4d demo`: a backend and a Blender, two processes, shoot the sample scene.

Needs nothing but the standard library to start. The work is in `demo_setup.py`.
"""

from require_python import require_python

if __name__ == "__main__":
    require_python()
    from demo_setup import main

    main()
