"""LMN: a large memory of product keys."""
