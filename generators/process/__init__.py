"""What all long-lived processes share: logs, signals, memory."""
