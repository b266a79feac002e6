"""Who may call: signatures, agents, nonces, rate limits, the audit log."""
