"""What a run leaves: tables, files of a run directory, traces, figures, the HTML report."""
