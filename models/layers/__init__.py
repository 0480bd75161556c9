"""Parts that rankers share: embeddings, attention, recurrences, the head."""
