"""What benches work with: clusters, a replayed watch, and processes of their own."""
