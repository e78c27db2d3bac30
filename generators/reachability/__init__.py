"""Who reaches whom: the reference evaluator, and questions to any engine."""
