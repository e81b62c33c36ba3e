"""What happens after an offer was accepted, by itself, on schedule."""
