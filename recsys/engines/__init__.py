"""Where the work of training runs."""
