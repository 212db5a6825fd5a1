"""What a run displays while it goes on, and at its end."""
