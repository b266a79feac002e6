"""What benchmarks and tests share: analytic fields, drawn photographs, and servers that they start."""
