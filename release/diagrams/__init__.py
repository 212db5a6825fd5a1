"""The diagrams of the pages, ``make diagrams``: SVG made of what `release.diagrams.pictures` says, by Python alone."""
