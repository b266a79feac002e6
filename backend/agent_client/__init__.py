"""The parts of the client, client.py; needs nothing of the service."""
