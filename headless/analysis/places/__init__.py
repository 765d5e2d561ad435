"""Where states lie: in the plane of their components, along positions, of one token repeated."""
