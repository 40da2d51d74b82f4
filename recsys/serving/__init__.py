"""A history -> a personalised top k: no pandas, no web framework."""
