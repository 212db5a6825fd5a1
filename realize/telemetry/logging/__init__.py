"""The logs of both programs."""
