"""Help: links of buttons to the manual, and to the project's website and issues."""
