"""Videos: what a plain clip from the air needs to become bags."""
