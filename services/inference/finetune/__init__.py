"""Adapters from feedback: rated conversations, a LoRA adapter, its evaluation, its registration and its first traffic."""
