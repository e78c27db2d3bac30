"""The resident agent: its loop, what it knows of this node, and the threads beside it."""
