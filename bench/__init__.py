"""Measurements and fault drills on real processes: `recsys bench` in a checkout."""
