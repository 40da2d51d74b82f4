"""One-command, self-contained measurements; `docs/benchmarks.md` holds their results."""
