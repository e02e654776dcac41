"""What a network is made of: blocks with options, and what a dry run finds out about them."""
