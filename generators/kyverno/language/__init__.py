"""Expressions, patterns and values of policies as Go and JMESPath read them."""
