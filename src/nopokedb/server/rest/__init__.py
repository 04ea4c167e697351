"""REST: from HTTP to operations and back."""
