"""The site, ``make docs``: the pages as they are, with search, navigation, and the docstrings of what is public."""
