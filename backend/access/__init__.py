"""Who may ask, how often, and what exactly was asked: the parts of the guard, agent_auth.py."""
