"""The database itself: connections, time-outs, failures in words."""
