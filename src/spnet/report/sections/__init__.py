"""The sections of the page: one idea each, a run (or several) in, markup out."""
