"""Events and sequences as arrays: pandas, pyarrow and numpy; no torch, no SQL."""
