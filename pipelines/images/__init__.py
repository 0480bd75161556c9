"""Images: from files to features, once an image, and from features to item vectors."""
