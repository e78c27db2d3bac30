"""What a release consists of, made from the commit that is checked out: `make release`."""
