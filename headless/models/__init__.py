"""A backbone from any Hugging Face config, built without its head, and what goes on top of it."""
