"""A run: its config, its record, its folder."""
