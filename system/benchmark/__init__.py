"""What each stage of a run does in a second, beside what a user would pick instead and beside what is possible."""
