"""Studies, one file each; every file here is imported by ``--study`` and ``--list`` and may register."""
