"""Labels that a Helm release wants of its namespace."""
