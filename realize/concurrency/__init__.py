"""Threads, fair turns, semaphores, and the memory that peers may occupy."""
