"""The tenant file: model, schema, assignment of namespaces."""
