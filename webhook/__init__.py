"""The cluster side: admission and the controller."""
