"""Containers as people and programs use them: images, configuration, launches and what is kept of them."""
