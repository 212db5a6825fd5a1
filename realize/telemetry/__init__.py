"""What both programs say about themselves to whoever runs them."""
