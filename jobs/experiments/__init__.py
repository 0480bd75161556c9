"""Tables of the papers, trained and set beside the printed figures."""
