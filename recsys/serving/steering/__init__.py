"""Scenarios and what else the people who run the shop decide, applied to answers."""
