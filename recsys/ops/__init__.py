"""What keeps an installation fresh, small and safe: retention, figures, the guard, backup, diagnosis."""
