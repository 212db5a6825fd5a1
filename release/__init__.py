"""Making a release: ``make release VERSION=1.0.0``; see ``docs/releasing.md``."""
