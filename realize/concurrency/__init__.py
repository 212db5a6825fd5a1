"""Who does what when: threads, turns, semaphores, and the memory that peers may take up."""
