"""Translation: English candidates of a text, a critic's scores of them, and the store that keeps both."""
