"""What a run directory is: names of files, atomic writes, the environment, the logged points."""
