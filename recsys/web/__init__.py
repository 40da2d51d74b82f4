"""REST over HTTP: the only home of Flask."""
