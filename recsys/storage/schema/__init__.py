"""Tables, and how they come and go."""
