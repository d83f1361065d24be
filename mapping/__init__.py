"""Where and in which order: models become operators, tiles, placements and programs."""
