"""What a generation used and cost, and what may be spent."""
