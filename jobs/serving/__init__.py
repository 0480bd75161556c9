"""The ranking service: memories through Feast, one readout for all candidates, never a history."""
