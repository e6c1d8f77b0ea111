"""Learning problems, the laws of their data, and their global minima."""
