"""What a peer asks of a store of ours."""
