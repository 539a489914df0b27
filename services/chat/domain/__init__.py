"""What chat knows without asking anyone: models, conversations, generations."""
