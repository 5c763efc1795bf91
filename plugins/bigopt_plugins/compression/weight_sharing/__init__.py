"""Weight sharing: codebooks, and the bits that they leave."""
