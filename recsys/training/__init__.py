"""From the log to a published version."""
