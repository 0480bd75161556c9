"""IMN: interest memory of delayed cross views."""
