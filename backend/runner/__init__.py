"""The parts of batch_processor.py: one batch run, its leases kept, its results recorded."""
