"""Read models of the dashboard: sums and lists that no page counts anew."""
