"""Pictures for papers and slides, a file each; a file put here is drawn in every report."""
