"""An event table of the user's own: read, never written."""
