"""One module for each command's options, and one for what it does."""
