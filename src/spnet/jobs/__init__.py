"""Lists of runs, side by side."""
