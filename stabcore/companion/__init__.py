"""What only the book needs: checks, figures and data."""
