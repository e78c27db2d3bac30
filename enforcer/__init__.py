"""The node side: policies to map entries to the kernel, flows back."""
