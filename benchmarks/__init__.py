"""What is measured, and the measured tables under results/."""
