"""Rows of the service's own tables, one file a subject."""
