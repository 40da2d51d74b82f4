"""What is killed and broken, and what must hold."""
