"""Shots for a render farm: a file of shots that `ex4d batch` makes, a task each."""
