"""What is around the calls of agent_api.py: forms in, answers out, errors, health, metrics, logs."""
