"""The configuration: its kinds, its files, its topics, and the live view that services read."""
