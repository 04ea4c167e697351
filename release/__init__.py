"""What a release is made with, beside the package: notes, and the licences of what it needs to run."""
