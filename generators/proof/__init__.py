"""Who reaches whom as sets: decided for all packets, where the evaluator decides one."""
