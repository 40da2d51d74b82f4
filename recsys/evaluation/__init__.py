"""How good a ranking is, how sure that is, and whether it may go live: numpy only."""
