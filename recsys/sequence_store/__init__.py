"""Sequences on disk, and how they follow the log."""
