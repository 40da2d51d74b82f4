"""Sequence files on disk, and how they are updated as the event log grows."""
