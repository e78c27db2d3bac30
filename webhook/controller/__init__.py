"""The controller: keeps every namespace, the record and admission as the tenant file wants it."""
