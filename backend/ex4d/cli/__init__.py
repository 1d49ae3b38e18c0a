"""The verbs of the command ``ex4d``: they parse options, call the package that does the work, and print results."""
