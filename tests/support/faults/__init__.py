"""What the fault tests share: services and workers that can be killed, callers that go on, and the report."""
