"""One class a ranker: MIMN here, IMN, LMN, DICM and the baselines in rooms of their own."""
