"""Published results beside ours: one module and one TOML a paper."""
