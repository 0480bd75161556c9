"""Image features of items: encoders, learned embeddings, and the files that hold them."""
