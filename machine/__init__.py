"""The accelerator, described once: configs, formats, instruction set, presets and shared tables."""
