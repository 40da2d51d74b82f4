"""Streams into the event log: partitions shared among consumers, positions stored with the events."""
