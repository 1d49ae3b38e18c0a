"""The verbs of ``ex4d``: they read options, call the rooms that do the work, and print what came of it."""
