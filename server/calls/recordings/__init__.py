"""What is recorded of calls: told of, stored, transcribed, and deleted at the provider."""
