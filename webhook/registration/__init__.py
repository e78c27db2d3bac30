"""What the API server is told about admission, its certificates, and the proof that it holds."""
