"""What all pictures share: how an arm looks, panels, axes, legends, and the files that they become."""
