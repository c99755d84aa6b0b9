"""The poster's claims, one experiment each."""
