"""Admission as registered in the API server, its certificates, and the proof that it works."""
