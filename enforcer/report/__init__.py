"""The report for an auditor: what keeps tenants apart, resting on the proof."""
