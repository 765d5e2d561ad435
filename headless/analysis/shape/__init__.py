"""The shape of the states: cones, spectra, outliers, norms and distributions."""
