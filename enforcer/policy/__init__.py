"""What policies say, as values: groups, identities, entries. Pure; knows no map and no agent."""
