"""From what is wanted to what is written: who gets the room of a map, and the order of writes.
Pure."""
