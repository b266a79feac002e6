"""Tests of the service as it is run: gunicorn on a real port, in a process of its own."""
