"""Campaigns: kill real processes, cut their connections, fill and unplug their disks, and check what is left."""
