"""The hostile drill: kills, faults, hostile input and exposure, a row each, with what must hold."""
