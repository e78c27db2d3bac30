"""The node side's commands: the agent itself, and the questions one asks it."""
