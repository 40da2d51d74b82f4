"""What ranks items: rankers that count, the network, and their blend; one way from history to scores."""
