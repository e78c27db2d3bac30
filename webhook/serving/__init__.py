"""The webhook's process: bytes in, a pure decision, bytes out."""
