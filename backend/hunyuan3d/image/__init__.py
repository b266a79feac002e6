"""Pictures in: opened, cut out, brought to the model's size."""
